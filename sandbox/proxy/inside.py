"""HTTP on one connection of the job's programs. Bodies are streamed, not buffered."""

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
"""Size limit for headers. Headers that arrive in one piece may exceed it by up to `CHUNK`."""
HEADER_SECONDS = 20.0
"""Seconds from the first byte of a request to the end of its headers. Local programs send them at
once; a slow one must not hold a connection."""
IDLE_SECONDS = 300.0
"""Seconds that an idle connection stays open between two requests. Long enough for the pauses of
a package manager."""
BODY_SECONDS = 60.0
"""Seconds between two parts of a request's body, for programs that compute while they upload."""
_LINGER_SECONDS = 2.0
"""Seconds for the job's side to read a refusal before the connection is closed."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    504: "timeout_error",
}


class Gone(Exception):
    """The job's side closed the connection or exceeded a time limit."""


class Inside:
    """One accepted connection. It cancels the task that uses it when the job's side disconnects.

    Args:
        accepted: a non-blocking socket; closed by `close`.
    """

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._http = h11.Connection(h11.SERVER, HEADER_BYTES)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._method = b""

    @property
    def early_data(self) -> bytes:
        """The bytes received after a CONNECT request."""
        return self._http.trailing_data[0]

    async def next_request(self) -> h11.Request | None:
        """Return the headers of the next request; None at the end of the connection.

        Raises:
            Refused: the request is not HTTP, or is ambiguous.
            Gone: the request did not arrive in time.
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
        """Yield the parts of a request's body as they arrive.

        Raises:
            Refused: the body is not HTTP.
            Gone: the body did not arrive completely.
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
        """Send a response, each part of its body as soon as it arrives.

        Raises:
            Gone: the job's side does not read it.
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
        """Send a refusal as text, or in the error format of Claude's API.

        The reason phrase has the sentence too: pip and npm show only it for a refused CONNECT.

        Raises:
            Gone: the job's side does not read it.
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
        """Confirm the tunnel of a CONNECT request, and return its connection.

        Raises:
            Gone: the job's side does not read it.
        """
        self._stop_watching()
        await self._send(h11.Response(status_code=200, headers=[], reason=b"Connected"))
        return SocketStream(self._socket)

    @property
    def can_respond(self) -> bool:
        """Whether no part of the response to the last request was sent."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def close(self, *, broken: bool) -> None:
        """Close at once. If `broken`, with a reset: a truncated response must not look complete."""
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
        """Wait until the response has arrived: closing with unread bytes would discard it."""
        self._stop_watching()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._loop.sock_recv(self._socket, CHUNK):
                    pass

    def _watch(self) -> None:
        """Cancel the task when the job's side closes the connection or its sending direction.

        Reads no data, so no byte of the next request is lost.
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
