"""Detects a process that produces no output and uses no CPU time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator

from sandbox.supervision.supervisor import descendants, stat_fields

WINDOW = 30.0
"""Seconds over which CPU use is averaged."""

CPU_SHARE = 0.03
"""Share of one core above which a window counts as active.

A waiting CLI uses 0.2 % of a core while the model does not answer, and 0.5 % while a command
sleeps. Its garbage collection takes up to 0.17 s at once, which is at most 1.0 % of 30 s. The
short tests of this project use 44 % (measured with CLI 2.1.330, the waiting over 200 s).
"""

_TICKS = os.sysconf("SC_CLK_TCK")


class IdleDetector:
    """Reports when a process tree has been idle for a time limit.

    Time in which the reader of the output is busy does not count: the process may be blocked.

    Args:
        root: the process id of the supervisor. All its descendants count, in any session.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._had_output = False
        self._reader_seconds = 0.0
        self._reader_busy_since: float | None = None

    def record_output(self) -> None:
        """Count the current window as active."""
        self._had_output = True

    @property
    def is_reader_busy(self) -> bool:
        """Whether the process is waiting for its reader."""
        return self._reader_busy_since is not None

    @contextlib.contextmanager
    def reader_busy(self) -> Iterator[None]:
        """Exclude the time of the block from the idle time."""
        self._reader_busy_since = time.monotonic()
        try:
            yield
        finally:
            self._reader_seconds = self._reader_time()
            self._reader_busy_since = None

    async def wait_until_idle(self, limit: float) -> None:
        """Return after `limit` idle seconds, at most two windows late."""
        # Windows are counted, not elapsed time: a worker that was suspended has not seen what the
        # process did during the suspension.
        window = min(limit, WINDOW)
        idle = 0.0
        reader, cpu = self._reader_time(), await self._cpu_seconds()
        while idle < limit:
            await asyncio.sleep(window)
            reader_before, cpu_before = reader, cpu
            reader, cpu = self._reader_time(), await self._cpu_seconds()
            is_active = self._had_output or cpu - cpu_before > CPU_SHARE * window
            idle = 0.0 if is_active else idle + max(0.0, window - (reader - reader_before))
            self._had_output = False

    def _reader_time(self) -> float:
        if self._reader_busy_since is None:
            return self._reader_seconds
        return self._reader_seconds + time.monotonic() - self._reader_busy_since

    async def _cpu_seconds(self) -> float:
        return await asyncio.to_thread(cpu_seconds, self._root)


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and its descendants, including those that have ended."""
    processes = [stat_fields(root), *(fields for _, fields in descendants(root))]
    # utime, stime, cutime and cstime of proc_pid_stat(5)
    return sum(int(ticks) for fields in processes for ticks in fields[11:15]) / _TICKS
