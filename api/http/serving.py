"""Serve an application with limits on slow clients and on connections, which uvicorn lacks."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.http.errors import json_error
from api.http.log_throttle import LogThrottle

HEAD_SECONDS = 10.0
"""Time for the request line and the headers. A slow network needs a second or two for them."""

BODY_SECONDS = 120.0
"""Time for the body: enough for the largest, 8 MiB, at 0.6 Mbit/s."""

UNREAD_SECONDS = 30.0
"""Time in which the client must read some part of an answer."""

MAX_HEAD_BYTES = 64 * 1024
"""Limit of the request line and the headers. Other servers have 8 to 32 KiB by default."""

MAX_CONNECTIONS = 256
"""Limit of one server. Two servers and the store stay below the usual 1,024 open files."""

MAX_REFUSED_CONNECTIONS = 64
"""Number of further connections that get an error. Beyond it they are closed without one."""

SHUTDOWN_SECONDS = 3
"""Time for running requests when the server stops."""

_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
]


def make_server(app: ASGIApp, host: str, port: int) -> uvicorn.Server:
    """Return a server for `serve`. Every answer forbids browsers to frame it or guess its type."""
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
        # Clients can forge X-Forwarded-For, and the log names clients by their address.
        proxy_headers=False,
        headers=_HEADERS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


async def serve(*servers: uvicorn.Server) -> None:
    """Run servers until SIGINT or SIGTERM.

    uvicorn raises the signal again when a server has stopped, so all servers get it in turn.
    """
    logging.getLogger("uvicorn.error").addFilter(LogThrottle())
    await asyncio.gather(*(server.serve() for server in servers))


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A request that does not arrive in time gets 408, and the connection ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._is_in_head = True
        self._head_bytes = 0

    def connection_made(  # type: ignore[override]  # the base class narrows it the same way
        self, transport: asyncio.Transport
    ) -> None:
        """Accept the connection, or refuse it when there are too many."""
        super().connection_made(transport)
        surplus = len(self.connections) - MAX_CONNECTIONS
        if surplus > MAX_REFUSED_CONNECTIONS:
            transport.abort()
            return
        if surplus > 0:
            self.app = _too_many_connections
        sock = transport.get_extra_info("socket")
        # The kernel then ends a connection whose peer acknowledges nothing for this time (tcp(7)),
        # even if it is closed here and only the rest of an answer is left to send.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        self._set_deadline(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline with the connection."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse a piece of a request."""
        # uvicorn stops its timer of idle connections for any data, even for empty lines, which
        # begin no request. So this deadline starts at the first byte.
        if self._deadline is None:
            self._set_deadline(HEAD_SECONDS)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"The request's headers are over {MAX_HEAD_BYTES} bytes. Send less.")

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP."""
        self._refuse(400, msg)

    def on_message_begin(self) -> None:
        """Start the deadline of a request."""
        super().on_message_begin()
        self._has_begun = True
        self._set_deadline(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers, after the body, are dropped: nothing reads them."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the deadline of the body."""
        self._is_in_head = False
        self._set_deadline(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Cancel the deadline."""
        self._has_begun = False
        self._is_in_head = True
        self._head_bytes = 0
        self._cancel_deadline()
        super().on_message_complete()

    def _set_deadline(self, seconds: float) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self._time_out)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        if self._is_in_head and self._is_answering:  # a pipelined request waits for this answer
            self._set_deadline(HEAD_SECONDS)
        elif not self._has_begun:
            self.transport.close()
        else:
            self._refuse(408, "The request did not arrive in time. Send it again.")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_answered(self) -> bool:
        """Whether the client would take another answer for that of a different request."""
        return self._is_answering if self._is_in_head else self.cycle.response_started

    def _refuse(self, status: int, message: str) -> None:
        """Answer the arriving request with an error, if that is still possible, and disconnect."""
        if not (self._is_answered or self.transport.is_closing()):
            body = bytes(json_error(status, message).body)
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
    message = f"The server has {MAX_CONNECTIONS} open connections already. Try again later."
    response = json_error(503, message, {"Connection": "close", "Retry-After": "5"})
    await response(scope, receive, send)
