"""What a job may use of its host, watched over all processes that it has started.

Standard library only, and only what is quick to import: the supervisor uses it.
"""

from __future__ import annotations

import os

INTERVAL = 1.0
"""Seconds between two looks; one look takes some milliseconds (measured)."""

_GROWTH = 1 << 20
"""Bytes written between two looks from which a job counts as filling the disk."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits:
    """Limits of one job; None is no limit.

    Args:
        processes: the most processes, threads included.
        file_bytes: the most bytes of one file.
        memory_bytes: the most memory of all processes together, shared pages counted once each.
        free_bytes: a job that writes is stopped while its disk has less room than this.
    """

    def __init__(
        self,
        processes: int | None = None,
        file_bytes: int | None = None,
        memory_bytes: int | None = None,
        free_bytes: int | None = None,
    ) -> None:
        self.processes = processes
        self.file_bytes = file_bytes
        self.memory_bytes = memory_bytes
        self.free_bytes = free_bytes

    def to_text(self) -> str:
        """Return the text that `from_text` reads."""
        return ",".join(f"{name}={most}" for name, most in vars(self).items() if most is not None)

    @classmethod
    def from_text(cls, text: str) -> Limits:
        """Read what `to_text` wrote."""
        pairs = (pair.split("=") for pair in text.split(",") if pair)
        return cls(**{name: int(most) for name, most in pairs})


class Watchdog:
    """Tells when the processes of one job are over a limit.

    Args:
        limits: those of the job.
        disk: a directory on the disk that it fills.
    """

    def __init__(self, limits: Limits, disk: str) -> None:
        self._limits = limits
        self._disk = disk
        self._written: int | None = None

    def exceeded(self, pids: Iterable[int]) -> str | None:
        """Return which limit is exceeded, in a sentence; None for none."""
        pids = list(pids)
        return self._memory(pids) or self._processes(pids) or self._free(pids)

    def _memory(self, pids: list[int]) -> str | None:
        most = self._limits.memory_bytes
        if most is None or (used := sum(map(_memory_of, pids))) <= most:
            return None
        return f"It used {_gib(used)} GiB of memory, and SANDBOX_MEMORY_GB is {_gib(most)}."

    def _processes(self, pids: list[int]) -> str | None:
        most = self._limits.processes
        if most is None or (count := sum(map(_threads_of, pids))) <= most:
            return None
        return f"It had {count} processes and threads, and SANDBOX_PROCESSES is {most}."

    def _free(self, pids: list[int]) -> str | None:
        least = self._limits.free_bytes
        if least is None:
            return None
        before, self._written = self._written, sum(map(_written_by, pids))
        found = os.statvfs(self._disk)
        free = found.f_bavail * found.f_frsize
        if free >= least or before is None or self._written - before < _GROWTH:
            return None
        return (
            f"It was writing while the disk had only {_gib(free)} GiB left, and "
            f"SANDBOX_MIN_FREE_GB is {_gib(least)}."
        )


def _memory_of(pid: int) -> int:
    """Return the memory that is a process's own: its resident pages but those of files."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE


def _threads_of(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _written_by(pid: int) -> int:
    """Return the bytes that a process and its ended children have written to disk."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            rows = dict(line.split(b": ", 1) for line in file.read().splitlines())
    except OSError:
        return 0
    return int(rows.get(b"write_bytes", 0))


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f}".removesuffix(".0")
