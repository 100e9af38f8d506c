"""HTTP with one connection of the job's programs: requests in, responses out, nothing buffered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterable, Iterable

import h11

from sandbox.proxy.headers import Header, has_body, is_ambiguous
from sandbox.proxy.policy import Refused
from sandbox.proxy.relay import CHUNK, SocketStream, reset_when_closed

HEADER_BYTES = 64 * 1024
"""Headers that come in one piece may be longer by `CHUNK`."""
HEADER_SECONDS = 20.0
"""From the first byte of a request to the end of its headers."""
IDLE_SECONDS = 300.0
"""Between two requests."""
BODY_SECONDS = 60.0
"""Between two parts of a request's body."""
_LINGER_SECONDS = 2.0

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    504: "timeout_error",
}


class Gone(Exception):
    """The other side has closed the connection or has been silent for too long."""


class Inside:
    """One accepted connection. One task uses it, which is cancelled when the job's side leaves.

    Args:
        accepted: a socket that does not block; closed by `close`.
    """

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._http = h11.Connection(h11.SERVER, HEADER_BYTES)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._method = b""

    @property
    def early_data(self) -> bytes:
        """The bytes that came after a CONNECT request."""
        return self._http.trailing_data[0]

    async def next_request(self) -> h11.Request | None:
        """Return the headers of the next request; None when there will be none.

        Raises:
            Refused: it is not HTTP, or ambiguous.
            Gone: it does not come in time.
        """
        self._stop_watching()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            return None
        begun = bool(self.early_data)
        try:
            async with asyncio.timeout(HEADER_SECONDS if begun else IDLE_SECONDS) as limit:
                while (event := self._next_event()) is h11.NEED_DATA:
                    await self._receive()
                    if not begun:
                        begun = True
                        limit.reschedule(self._loop.time() + HEADER_SECONDS)
        except TimeoutError as error:
            if begun:
                raise Gone from error
            return None
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        if is_ambiguous(event):
            raise Refused(400, "The request tells the length of its body in two ways.")
        if not has_body(event):
            self._next_event()  # the end of the request
            self._watch()
        return event

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Yield the parts of a request's body as they come.

        Raises:
            Refused: it is not HTTP.
            Gone: it does not come to its end.
        """
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
                continue
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    await self._receive()
            except TimeoutError as error:
                raise Gone from error
        self._watch()

    async def respond(
        self, status: int, reason: bytes, headers: Iterable[Header], body: AsyncIterable[bytes]
    ) -> None:
        """Send a response, each part of its body as it comes.

        Raises:
            Gone: the job's side does not take it.
        """
        await self._send(h11.Response(status_code=status, headers=list(headers), reason=reason))
        async for part in body:
            await self._send(h11.Data(data=part))
        await self._end_response()

    async def _end_response(self) -> None:
        await self._send(h11.EndOfMessage())
        if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is not h11.DONE:
            await self._linger()

    async def refuse(self, refused: Refused, *, in_api: bool) -> None:
        """Send a refusal as a text, or in the form of Claude's API.

        The sentence is in the reason too: pip and npm show nothing else of a refused CONNECT.

        Raises:
            Gone: the job's side does not take it.
        """
        sentence = " ".join(refused.message.split())
        content, kind = f"{sentence}\n".encode(), b"text/plain; charset=utf-8"
        if in_api:
            name = _ERROR_TYPES.get(refused.status, "api_error")
            error = {"type": "error", "error": {"type": name, "message": sentence}}
            content, kind = json.dumps(error).encode(), b"application/json"
        length = str(len(content)).encode()
        headers = [(b"Content-Type", kind), (b"Content-Length", length)]
        reason = sentence.encode("ascii", "replace")
        await self._send(h11.Response(status_code=refused.status, headers=headers, reason=reason))
        if self._method != b"HEAD":
            await self._send(h11.Data(data=content))
        await self._end_response()

    async def become_tunnel(self) -> SocketStream:
        """Say that the tunnel of a CONNECT request is there; return what it is used with.

        Raises:
            Gone: the job's side does not take it.
        """
        self._stop_watching()
        await self._send(h11.Response(status_code=200, headers=[], reason=b"Connected"))
        return SocketStream(self._socket)

    @property
    def can_respond(self) -> bool:
        """Whether no part of a response to the last request was sent."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def close(self, *, broken: bool) -> None:
        """Close it at once; when it is broken, so that a response does not look complete."""
        if self._socket.fileno() >= 0:
            self._stop_watching()
            if broken:
                reset_when_closed(self._socket)
            self._socket.close()

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            limit = HEADER_BYTES // 1024
            message = f"The request is not HTTP, or its headers are over {limit} KiB."
            raise Refused(error.error_status_hint, message) from error

    async def _receive(self) -> None:
        try:
            self._http.receive_data(await self._loop.sock_recv(self._socket, CHUNK))
        except OSError as error:
            raise Gone from error

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            try:
                await self._loop.sock_sendall(self._socket, data)
            except OSError as error:
                raise Gone from error

    async def _linger(self) -> None:
        """Let the response arrive: closing with unread bytes would destroy it on its way."""
        self._stop_watching()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._loop.sock_recv(self._socket, CHUNK):
                    pass

    def _watch(self) -> None:
        """Cancel the task when the job's side leaves; one that only ends its direction has left.

        It reads nothing, so no byte of a next request can get lost.
        """
        self._loop.add_reader(self._socket, self._look)

    def _stop_watching(self) -> None:
        self._loop.remove_reader(self._socket)

    def _look(self) -> None:
        try:
            left = not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            left = True
        self._stop_watching()
        if left and self._task is not None:
            self._task.cancel()
