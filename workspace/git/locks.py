"""Locks on mirrors and worktrees, in this process and between processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

_FIRST_WAIT = 0.005
_LONGEST_WAIT = 0.1

_held: ContextVar[tuple[int, ...]] = ContextVar("held_lock_descriptors", default=())


def held_descriptors() -> tuple[int, ...]:
    """Return the descriptors of the locks that this asyncio task holds.

    A command that inherits them keeps the locks until it ends, even if this process is killed:
    flock(2) locks belong to the open file, not to the process.
    """
    return _held.get()


class Locks:
    """Exclusive locks, each named by a file.

    Waiting does not block the event loop. A cancelled wait leaves nothing locked. The locks are
    not re-entrant.
    """

    def __init__(self) -> None:
        self._local: dict[Path, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def hold(self, file: Path) -> AsyncIterator[None]:
        """Hold the lock named `file`. Its directory is created."""
        file.parent.mkdir(parents=True, exist_ok=True)
        async with self._local.setdefault(file, asyncio.Lock()):
            descriptor = await _open_locked(file)
            token = _held.set((*_held.get(), descriptor))
            try:
                yield
            finally:
                _held.reset(token)
                os.close(descriptor)

    def forget(self, file: Path) -> None:
        """Delete a lock that is no longer needed. Call it while holding the lock."""
        self._local.pop(file, None)
        file.unlink(missing_ok=True)


async def _open_locked(file: Path) -> int:
    """Wait for the lock and return the descriptor that holds it."""
    wait = _FIRST_WAIT
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locks(descriptor) and _is_same(descriptor, file):
            return descriptor
        os.close(descriptor)
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, file: Path) -> bool:
    """Return whether the path is still the locked file, which `forget` may have deleted."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
