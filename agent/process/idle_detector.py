"""Whether a process that says nothing is at work: the processor time of all that runs below it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator

from sandbox.supervision.supervisor import descendants, stat_fields

WINDOW = 30.0
"""Seconds over which the use of the processor is averaged."""

SHARE = 0.03
"""Share of one core above which a window counts as work.

A CLI that waits uses 0.2 % of a core while the model does not answer and 0.5 % while a command
sleeps. Its garbage collection takes up to 0.17 s at once, which makes at most 1.0 % of 30 s. The
quick tests of this project use 44 % (measured with CLI 2.1.330, the waiting over 200 s).
"""

_TICKS = os.sysconf("SC_CLK_TCK")


class IdleDetector:
    """Tells when a process was neither heard, nor at work, nor held back by its reader for long.

    Args:
        root: the process id of its supervisor; whatever runs below it counts, in whichever session.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._heard = False
        self._held_seconds = 0.0
        self._held_since: float | None = None

    def hear(self) -> None:
        """Note that the process said something."""
        self._heard = True

    @property
    def is_held(self) -> bool:
        """Whether the process waits for its reader now."""
        return self._held_since is not None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Mark that silence now is the reader's, not the process's."""
        self._held_since = time.monotonic()
        try:
            yield
        finally:
            self._held_seconds = self._held()
            self._held_since = None

    async def runs_out(self, limit: float) -> None:
        """Return after `limit` seconds of silence, at most two windows late.

        It counts windows and not the time between: a worker that was stopped and goes on has not
        seen what the process did meanwhile.
        """
        window = min(limit, WINDOW)
        silent = 0.0
        held, used = self._held(), await self._used()
        while silent < limit:
            await asyncio.sleep(window)
            held_before, used_before = held, used
            held, used = self._held(), await self._used()
            is_alive = self._heard or used - used_before > SHARE * window
            silent = 0.0 if is_alive else silent + max(0.0, window - (held - held_before))
            self._heard = False

    def _held(self) -> float:
        """Seconds so far, those that still run included."""
        if self._held_since is None:
            return self._held_seconds
        return self._held_seconds + time.monotonic() - self._held_since

    async def _used(self) -> float:
        return await asyncio.to_thread(processor_seconds, self._root)


def processor_seconds(root: int) -> float:
    """Sum the processor time of a process and all below it, living or waited for."""
    processes = [stat_fields(root), *(fields for _, fields in descendants(root))]
    # utime, stime, cutime and cstime of proc_pid_stat(5)
    return sum(int(ticks) for fields in processes for ticks in fields[11:15]) / _TICKS
