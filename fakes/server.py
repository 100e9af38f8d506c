"""Run an ASGI app on a loopback port in a separate thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Seconds. Starting and stopping take milliseconds; the limits only detect a server that hangs.
_START_LIMIT = 10.0
_STOP_LIMIT = 10.0
_UNWINDING = 0.1
"""Seconds for requests to end by themselves after their connections were cut."""

_ROUNDS = 5
"""Iterations of the event loop until an accepted connection is registered, or a closed one gone."""


@contextlib.contextmanager
def serving(app: ASGIApp, port: int = 0, *, patience: float = 1.0) -> Iterator[str]:
    """Serve an app on 127.0.0.1 while the context lasts. All connections are closed at its end.

    Args:
        app: the ASGI app; `transport_of` returns the connection of a request.
        port: the port; 0 chooses a free one.
        patience: seconds that running requests have to finish at the end.

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
    """Return the connection of a request, so that a response can cut it."""
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport


class _Protocol(HttpToolsProtocol):
    """HTTP protocol that adds the connection to the state of each request."""

    def connection_made(  # type: ignore[override]  # the base class narrows it the same way
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Server(uvicorn.Server):
    """A uvicorn server in its own thread that stops faster than uvicorn's own.

    uvicorn also leaves connections open whose requests exceed its shutdown time limit.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, patience: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                # Subprocesses of asyncio's own loop work in any thread.
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                # Keep the logging configuration of the process.
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )
        self._listener = listener
        self._patience = patience
        self._started_or_failed = threading.Event()
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="loopback-server", daemon=True)

    def start(self) -> None:
        """Return once the server listens."""
        self._thread.start()
        self._started_or_failed.wait(_START_LIMIT)
        if not self.started:
            self.stop()
            raise RuntimeError("A server on 127.0.0.1 did not start. Its log has the reason.")

    def stop(self) -> None:
        """Return once the server has ended. Idempotent."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_STOP_LIMIT)

    def _run(self) -> None:
        try:
            self.run([self._listener])
        finally:
            self._started_or_failed.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._started_or_failed.set()

    async def main_loop(self) -> None:
        """Wait for `stop`."""
        await self.on_tick(0)
        await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests; wait for running ones, then cut them."""
        tasks = self.server_state.tasks
        # asyncio leaves a connection open if it was accepted just before the server was closed.
        asyncio.get_running_loop().remove_reader(self._listener)
        await _run_loop_callbacks()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await _wait_for(tasks, self._patience)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await _run_loop_callbacks()
        await _wait_for(tasks, _UNWINDING)
        for task in list(tasks):
            task.cancel()
        await _wait_for(tasks, None)


async def _run_loop_callbacks() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


async def _wait_for(tasks: set[asyncio.Task[None]], seconds: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _listener_on(port: int) -> socket.socket:
    # asyncio turns off Nagle's algorithm only for sockets with an explicit TCP protocol. With the
    # algorithm, each reply on a keep-alive connection takes 40 ms longer (measured).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
