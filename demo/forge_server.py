"""Runs an ASGI app on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.forge_faults import DROP_CONNECTION

# Seconds.
_START_LIMIT = 10.0
_STOP_LIMIT = 10.0
_GRACE = 1.0
_POLL = 0.002

_LAST_ROUNDS = 5
"""Of the loop, in which connections come up that were just being accepted, and let go."""


@contextlib.contextmanager
def serving(app: ASGIApp, port: int) -> Iterator[str]:
    """Serve an app on 127.0.0.1 while the context lasts.

    Requests that are under way at its end have one second to finish.

    Args:
        app: what to serve.
        port: the port; 0 takes a free one.

    Yields:
        The URL, without a slash at the end.
    """
    with listener_on(port) as listener:
        server = _Server(app)
        thread = threading.Thread(target=server.run, args=([listener],), name="forge", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.end()
            thread.join(_STOP_LIMIT)


class _Server(uvicorn.Server):
    """A server that ends as soon as it is told to, where uvicorn's own takes a fifth of a second.

    It lets the app drop a connection, and waits for cancelled requests to clean up.
    """

    def __init__(self, app: ASGIApp) -> None:
        async def droppable(scope: Scope, receive: Receive, send: Send) -> None:
            scope[DROP_CONNECTION] = lambda: self._drop(scope["client"])
            await app(scope, receive, send)

        super().__init__(
            uvicorn.Config(
                droppable,
                # asyncio's own loop, because its subprocesses work in any thread.
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )

        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Tell it to end, from any thread; once ended, nothing happens."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """Wait until told to end."""
        await self.on_tick(0)
        await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and end those under way, by force when they last too long."""
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_GRACE)
        for asyncio_task in list(state.tasks):
            asyncio_task.cancel()
        for _ in range(_LAST_ROUNDS):
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        if state.tasks:
            await asyncio.wait(state.tasks)

    def _drop(self, client: tuple[str, int]) -> None:
        """Close the connection of a client without an answer."""
        for connection in list(self.server_state.connections):
            if getattr(connection, "client", None) == client:
                connection.transport.close()


def listener_on(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1; port 0 takes a free one."""
    # asyncio turns Nagle's algorithm off only for sockets that name TCP as their protocol; with it
    # every reply on a kept-alive connection takes 40 ms longer (measured).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("The forge's HTTP server did not start. Its log says why.")
        time.sleep(_POLL)
