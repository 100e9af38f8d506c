"""Resource limits of a job, monitored over all processes that it has started.

The supervisor imports this module: use only parts of the standard library that import quickly.
"""

from __future__ import annotations

import os

INTERVAL = 0.5
"""Seconds between two checks. A check takes 5 ms with 150 processes on the host (measured).

A process fills about 2 GB of memory per second, so a job is stopped a few GB above its limit.
"""

_GROWTH = 1 << 20
"""A job that writes this many bytes between two checks counts as filling the disk."""

_INODE = 1024
"""Bytes of memory that a file on a tmpfs takes, in addition to its content."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")

# Indexes into `stat_fields`, which starts at the third field of proc_pid_stat(5).
_THREADS = 17
_RESIDENT = 21


class Limits:
    """Limits of one job; None means no limit.

    Args:
        processes: maximum number of processes and threads.
        file_bytes: maximum size of one file.
        memory_bytes: maximum memory of all processes together. Shared pages count once, and files
            on a tmpfs of the sandbox count too.
        free_bytes: a job that writes is stopped while its disk has less free space than this.
        groups: the parent directory of control groups, from `cgroups.prepare`.
    """

    def __init__(
        self,
        processes: int | None = None,
        file_bytes: int | None = None,
        memory_bytes: int | None = None,
        free_bytes: int | None = None,
        groups: str | None = None,
    ) -> None:
        self.processes = processes
        self.file_bytes = file_bytes
        self.memory_bytes = memory_bytes
        self.free_bytes = free_bytes
        self.groups = groups

    def to_text(self) -> str:
        """Return the limits as a text for `from_text`."""
        numbers = {name: limit for name, limit in vars(self).items() if name != "groups"}
        pairs = [f"{name}={limit}" for name, limit in numbers.items() if limit is not None]
        return ",".join([*pairs, f"groups={self.groups or ''}"])

    @classmethod
    def from_text(cls, text: str) -> Limits:
        """Parse the text of `to_text`."""
        numbers, _, groups = text.partition("groups=")
        pairs = (pair.split("=") for pair in numbers.split(",") if pair)
        return cls(**{name: int(limit) for name, limit in pairs}, groups=groups or None)

    def within(self, groups: str | None) -> Limits:
        """Return these limits with another value of `groups`."""
        return Limits(**{**vars(self), "groups": groups})


class Watchdog:
    """Detect that the processes of one job exceed a limit.

    Memory that is neither mapped by a process nor on a tmpfs is not counted: memfd_create(2) and
    System V segments. If the host runs out of memory, the kernel kills processes of jobs first.

    Args:
        limits: the limits of the job.
        disk: a directory on the disk that the job writes to.
    """

    def __init__(self, limits: Limits, disk: str) -> None:
        self._limits = limits
        self._disk = disk
        self._written = 0

    def exceeded(
        self, living: Callable[[], Iterable[tuple[int, list[bytes]]]], init: int
    ) -> str | None:
        """Return a sentence about the exceeded limit, or None.

        Args:
            living: returns the processes of the job, with the `stat_fields` of each.
            init: process id of the sandbox's first process; 0 without namespaces.
        """
        # During a fork bomb little processor time is left, so the fastest count comes first.
        if (problem := self._too_many(_listed(init))) is not None:
            return problem
        processes = dict(living())
        count = sum(int(fields[_THREADS]) for fields in processes.values())
        return self._too_many(count) or self._memory(processes, init) or self._free([*processes])

    def _too_many(self, count: int) -> str | None:
        limit = self._limits.processes
        if limit is None or count <= limit:
            return None
        return f"It had {count} processes and threads, and SANDBOX_PROCESSES is {limit}."

    def _memory(self, processes: dict[int, list[bytes]], init: int) -> str | None:
        limit = self._limits.memory_bytes
        if limit is None:
            return None
        files = sum(map(_used_of, _own_tmpfs(init))) if init else 0
        # This sum is quick to read, but counts shared pages once for each process.
        resident = sum(int(fields[_RESIDENT]) for fields in processes.values()) * _PAGE
        if resident + files <= limit:
            return None
        own, shared = map(sum, zip(*map(_shares_of, processes), strict=True))
        # A file on a tmpfs can also be mapped: do not count it twice.
        used = own + max(shared, files)
        if used <= limit:
            return None
        return f"It used {_gib(used)} GiB of memory, and SANDBOX_MEMORY_GB is {_gib(limit)}."

    def _free(self, pids: list[int]) -> str | None:
        minimum = self._limits.free_bytes
        if minimum is None:
            return None
        before, self._written = self._written, sum(map(_written_by, pids))
        disk = os.statvfs(self._disk)
        free = disk.f_bavail * disk.f_frsize
        if free >= minimum or self._written - before < _GROWTH:
            return None
        return (
            f"It was writing while the disk had only {_gib(free)} GiB left, and "
            f"SANDBOX_MIN_FREE_GB is {_gib(minimum)}."
        )


def _listed(init: int) -> int:
    """Count the processes of a sandbox in its own /proc: 2 ms for 4,000 (measured)."""
    if not init:
        return 0
    try:
        return sum(name.isdigit() for name in os.listdir(f"/proc/{init}/root/proc"))
    except OSError:
        return 0


def _shares_of(pid: int) -> tuple[int, int]:
    """Return the anonymous and the shared memory of a process, in bytes.

    A page shared by N processes counts 1/N for each. Reading takes some milliseconds per GB.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            rows = dict(line.split(b":", 1) for line in file.read().splitlines()[1:])
    except (OSError, ValueError):
        return _private_of(pid), 0
    sizes = {name: int(value.split()[0]) << 10 for name, value in rows.items()}
    anonymous = sizes.get(b"Pss_Anon", 0) + sizes.get(b"SwapPss", 0)
    return anonymous, sizes.get(b"Pss_Shmem", 0)


def _private_of(pid: int) -> int:
    """Return resident memory without file pages, for a process with unreadable smaps."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE


def _own_tmpfs(init: int) -> Iterator[str]:
    """Yield the writable tmpfs mounts of a sandbox, as paths of the host: proc_pid_mountinfo(5).

    A part of a host tmpfs has a root other than `/` and is skipped.
    """
    try:
        with open(f"/proc/{init}/mountinfo", "rb") as file:
            rows = [line.split() for line in file]
    except OSError:
        return
    for row in rows:
        root, place, options = row[3:6]
        is_tmpfs = row[row.index(b"-") + 1] == b"tmpfs"
        if is_tmpfs and root == b"/" and options.startswith(b"rw"):
            yield f"/proc/{init}/root{os.fsdecode(place)}"


def _used_of(tmpfs: str) -> int:
    try:
        status = os.statvfs(tmpfs)
    except OSError:
        return 0
    blocks = (status.f_blocks - status.f_bfree) * status.f_frsize
    return blocks + (status.f_files - status.f_ffree) * _INODE


def _written_by(pid: int) -> int:
    """Return the bytes written to disk by a process and its ended children."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            rows = dict(line.split(b": ", 1) for line in file.read().splitlines())
    except OSError:
        return 0
    return int(rows.get(b"write_bytes", 0))


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f}".removesuffix(".0")
