"""What a job may use of its host, watched over all processes that it has started.

Standard library only, and only what is quick to import: the supervisor uses it.
"""

from __future__ import annotations

import os

INTERVAL = 0.5
"""Seconds between two looks, of which one takes 5 ms with 150 processes on the host (measured).

A process fills about 2 GB of memory in a second, so that a job is stopped some GB above its limit.
"""

_GROWTH = 1 << 20
"""Bytes written between two looks from which a job counts as filling the disk."""

_INODE = 1024
"""Bytes of memory that a file takes on a tmpfs, beside its content."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")

# Of proc_pid_stat(5), from its third field on.
_THREADS = 17
_RESIDENT = 21


class Limits:
    """Limits of one job; None is no limit.

    Args:
        processes: the most processes, threads included.
        file_bytes: the most bytes of one file.
        memory_bytes: the most memory of all processes together. Pages that several share count
            once; files on a tmpfs of the sandbox count too.
        free_bytes: a job that writes is stopped while its disk has less room than this.
        groups: where each job has a control group, as `cgroups.prepare` returned it.
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
        """Return the text that `from_text` reads."""
        numbers = {name: most for name, most in vars(self).items() if name != "groups"}
        pairs = [f"{name}={most}" for name, most in numbers.items() if most is not None]
        return ",".join([*pairs, f"groups={self.groups or ''}"])

    @classmethod
    def from_text(cls, text: str) -> Limits:
        """Read what `to_text` wrote."""
        numbers, _, groups = text.partition("groups=")
        pairs = (pair.split("=") for pair in numbers.split(",") if pair)
        return cls(**{name: int(most) for name, most in pairs}, groups=groups or None)

    def within(self, groups: str | None) -> Limits:
        """Return these limits with the place of the control groups."""
        return Limits(**{**vars(self), "groups": groups})


class Watchdog:
    """Tells when the processes of one job are over a limit.

    Memory that no process has mapped and no tmpfs holds is not seen: files of memfd_create(2) and
    System V segments. When the host has none left, the kernel ends the processes of jobs first.

    Args:
        limits: those of the job.
        disk: a directory on the disk that it fills.
    """

    def __init__(self, limits: Limits, disk: str) -> None:
        self._limits = limits
        self._disk = disk
        self._written = 0

    def exceeded(
        self, living: Callable[[], Iterable[tuple[int, list[bytes]]]], init: int
    ) -> str | None:
        """Return which limit is exceeded, in a sentence; None for none.

        Args:
            living: returns the processes of the job, each with its `stat_fields`.
            init: the first process of the sandbox; 0 for a command without namespaces.
        """
        # A fork bomb leaves little of the processor, so it is counted in the quickest way.
        if (said := self._too_many(_listed(init))) is not None:
            return said
        found = dict(living())
        count = sum(int(fields[_THREADS]) for fields in found.values())
        return self._too_many(count) or self._memory(found, init) or self._free([*found])

    def _too_many(self, count: int) -> str | None:
        most = self._limits.processes
        if most is None or count <= most:
            return None
        return f"It had {count} processes and threads, and SANDBOX_PROCESSES is {most}."

    def _memory(self, processes: dict[int, list[bytes]], init: int) -> str | None:
        most = self._limits.memory_bytes
        if most is None:
            return None
        files = sum(map(_used_of, _own_tmpfs(init))) if init else 0
        # Counts what several processes share for each of them, but is quick to read.
        resident = sum(int(fields[_RESIDENT]) for fields in processes.values()) * _PAGE
        if resident + files <= most:
            return None
        own, shared = map(sum, zip(*map(_shares_of, processes), strict=True))
        # A file on a tmpfs can be mapped as well.
        used = own + max(shared, files)
        if used <= most:
            return None
        return f"It used {_gib(used)} GiB of memory, and SANDBOX_MEMORY_GB is {_gib(most)}."

    def _free(self, pids: list[int]) -> str | None:
        least = self._limits.free_bytes
        if least is None:
            return None
        before, self._written = self._written, sum(map(_written_by, pids))
        found = os.statvfs(self._disk)
        free = found.f_bavail * found.f_frsize
        if free >= least or self._written - before < _GROWTH:
            return None
        return (
            f"It was writing while the disk had only {_gib(free)} GiB left, and "
            f"SANDBOX_MIN_FREE_GB is {_gib(least)}."
        )


def _listed(init: int) -> int:
    """Count the processes of a sandbox by its own /proc: 2 ms for 4,000 (measured)."""
    if not init:
        return 0
    try:
        return sum(name.isdigit() for name in os.listdir(f"/proc/{init}/root/proc"))
    except OSError:
        return 0


def _shares_of(pid: int) -> tuple[int, int]:
    """Return a process's part of the memory that it uses: anonymous, and of shared memory.

    A page that N processes share counts 1/N for each. Reading it takes the kernel some
    milliseconds for each GB.
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
    """Return the resident memory but that of files; for a process that hides the rest."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE


def _own_tmpfs(init: int) -> Iterator[str]:
    """Yield the writable tmpfs of a sandbox, by proc_pid_mountinfo(5), as paths from outside.

    One of the host's, of which a part is mounted, has another root than `/`.
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
        found = os.statvfs(tmpfs)
    except OSError:
        return 0
    blocks = (found.f_blocks - found.f_bfree) * found.f_frsize
    return blocks + (found.f_files - found.f_ffree) * _INODE


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
