"""Serves an application with limits for slow and for many clients, which uvicorn has not."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.http.errors import json_error
from api.http.repeated_lines import RepeatedLines

HEAD_SECONDS = 10.0
"""For the request line and the headers. They fit into a few packets, so a slow network needs a
second or two."""

BODY_SECONDS = 120.0
"""For the body: enough for the largest one, 8 MiB, at 0.6 Mbit/s."""

UNREAD_SECONDS = 30.0
"""For the client to take something of an answer that is on its way."""

MAX_HEAD_BYTES = 64 * 1024
"""Of the request line and the headers. Other servers allow 8 to 32 KiB by default."""

MAX_CONNECTIONS = 256
"""Of one server. Two servers and the store stay below 1,024 open files, the usual limit."""

MAX_REFUSED_CONNECTIONS = 64
"""How many more are answered that there are too many; still more are closed unanswered."""

SHUTDOWN_SECONDS = 3
"""For requests under way when the server stops."""

_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
]


def make_server(app: ASGIApp, host: str, port: int) -> uvicorn.Server:
    """Return a server for `serve`. Every answer tells browsers not to frame or reinterpret it."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Anyone can write X-Forwarded-For, and the log names clients by their address.
        proxy_headers=False,
        headers=_HEADERS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


async def serve(*servers: uvicorn.Server) -> None:
    """Run servers until SIGINT or SIGTERM.

    Each uvicorn server passes the signal on, when it has ended, to the one that started before it.
    """
    logging.getLogger("uvicorn.error").addFilter(RepeatedLines())
    await asyncio.gather(*(server.serve() for server in servers))


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A request that does not arrive in time is answered with 408 and cut off."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_begun = False
        self._is_in_head = True
        self._head_bytes = 0

    def connection_made(  # type: ignore[override]  # the base class narrows it the same way
        self, transport: asyncio.Transport
    ) -> None:
        """Take the connection, or refuse it when there are too many."""
        super().connection_made(transport)
        surplus = len(self.connections) - MAX_CONNECTIONS
        if surplus > MAX_REFUSED_CONNECTIONS:
            transport.abort()
            return
        if surplus > 0:
            self.app = _too_many_connections
        sock = transport.get_extra_info("socket")
        # The kernel ends a connection whose peer takes nothing for so long (tcp(7)), also one that
        # is closed but has yet to send the rest of an answer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        self._allow(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        # Otherwise uvicorn stops its own clock, of idle connections, for a client that sends
        # what begins no request, such as empty lines.
        if self._deadline is None:
            self._allow(HEAD_SECONDS)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"The request's headers are over {MAX_HEAD_BYTES} bytes.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, msg)

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        self._is_begun = True
        self._allow(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but none that follows the body: nothing reads those."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the clock of the body."""
        self._is_in_head = False
        self._allow(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the clock."""
        self._is_begun = False
        self._is_in_head = True
        self._head_bytes = 0
        self._end_deadline()
        super().on_message_complete()

    def _allow(self, seconds: float) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(seconds, self._run_out)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _run_out(self) -> None:
        if self._is_in_head and self._is_answering:  # the next request waits for this answer
            self._allow(HEAD_SECONDS)
        elif not self._is_begun:
            self.transport.close()
        else:
            self._refuse(408, "The request did not arrive in time. Send it again.")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_answered(self) -> bool:
        """Whether an answer now would be taken for that of another request, or for a second one."""
        return self._is_answering if self._is_in_head else self.cycle.response_started

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer the request that is arriving with an error, if that is possible, and hang up."""
        if not (self._is_answered or self.transport.is_closing()):
            body = bytes(json_error(status, sentence).body)
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.close()


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    sentence = f"The server has {MAX_CONNECTIONS} open connections already. Try again later."
    response = json_error(503, sentence, {"Connection": "close", "Retry-After": "5"})
    await response(scope, receive, send)
