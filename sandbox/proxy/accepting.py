"""The connections of one job: accepted up to a limit, one task each, all closed together."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""Maximum number of concurrent connections of a job. More connections wait."""
_PAUSE_SECONDS = 1.0
"""Pause in accepting when no descriptor is free, so that the loop does not spin."""

Serve = Callable[[socket.socket], Coroutine[None, None, None]]
"""Serve one accepted connection, and close it."""


class Connections:
    """Accept the connections of a job's listening sockets. Close it with `aclose`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[socket.socket, Serve] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None

    def listen(self, listener: socket.socket, serve: Serve) -> None:
        """Serve every connection that comes to a listening socket; `aclose` closes it."""
        listener.setblocking(False)
        self._listeners[listener] = serve
        self._loop.add_reader(listener, self._accept, listener)

    async def aclose(self) -> None:
        """Stop accepting, then cancel all tasks and wait for them."""
        self._pause()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.warning("Connections of a sandbox wait: %s", error)
            self._pause()
            self._later = self._loop.call_later(_PAUSE_SECONDS, self._resume)
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._listeners[listener](accepted))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, accepted))
        if len(self._tasks) >= MAX_CONNECTIONS:
            self._pause()

    def _ended(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        accepted.close()  # A task that was cancelled before it started could not close it.
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A connection of a sandbox failed", exc_info=error)
        self._resume()

    def _pause(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def _resume(self) -> None:
        if len(self._tasks) < MAX_CONNECTIONS:
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept, listener)
