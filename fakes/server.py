"""Runs an ASGI app on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Seconds.
_START_LIMIT = 10.0
_STOP_LIMIT = 10.0
_UNWINDING = 0.1

_ROUNDS = 5
"""Of the loop, in which a connection comes up that was just being accepted, or is let go."""


@contextlib.contextmanager
def serving(app: ASGIApp, port: int = 0, *, patience: float = 1.0) -> Iterator[str]:
    """Serve an app on 127.0.0.1 while the context lasts. No connection outlives it.

    Args:
        app: what to serve; `transport_of` has the connection of a request.
        port: the port; 0 takes a free one.
        patience: seconds that requests under way at its end have to finish.

    Yields:
        The URL, without a slash at the end.

    Raises:
        OSError: the port is in use.
        RuntimeError: the server did not start within 10 s.
    """
    with _listener_on(port) as listener:
        server = _Server(app, listener, patience)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop()


def transport_of(scope: Scope) -> asyncio.Transport:
    """Return the connection on which a request came, so that an answer can cut it."""
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport


class _Protocol(HttpToolsProtocol):
    """HTTP that shows requests their connection."""

    def connection_made(  # type: ignore[override]  # the base class narrows it the same way
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Server(uvicorn.Server):
    """A server with a thread to run in, which ends at once where uvicorn's own takes a while.

    uvicorn's own also leaves connections open whose requests outlast its patience.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, patience: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                # asyncio's own loop, because its subprocesses work in any thread.
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                # The process's own logging stays as it is.
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )
        self._listener = listener
        self._patience = patience
        self._settled = threading.Event()
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="loopback-server", daemon=True)

    def start(self) -> None:
        """Return once it listens."""
        self._thread.start()
        self._settled.wait(_START_LIMIT)
        if not self.started:
            self.stop()
            raise RuntimeError("A server on 127.0.0.1 did not start. Its log says why.")

    def stop(self) -> None:
        """Return once it has ended; once ended, nothing happens."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_STOP_LIMIT)

    def _run(self) -> None:
        try:
            self.run([self._listener])
        finally:
            self._settled.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._settled.set()

    async def main_loop(self) -> None:
        """Wait until told to end."""
        await self.on_tick(0)
        await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and end those under way, by force when they last too long."""
        tasks = self.server_state.tasks
        # asyncio leaves a connection open that it accepted just before its server was closed.
        asyncio.get_running_loop().remove_reader(self._listener)
        await _let_pass()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await _wait_for(tasks, self._patience)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await _let_pass()
        await _wait_for(tasks, _UNWINDING)
        for task in list(tasks):
            task.cancel()
        await _wait_for(tasks, None)


async def _let_pass() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


async def _wait_for(tasks: set[asyncio.Task[None]], seconds: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _listener_on(port: int) -> socket.socket:
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
