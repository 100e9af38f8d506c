"""Control groups (cgroup v2) of jobs, if the service manager has delegated one to the worker.

systemd delegates a group with `Delegate=yes` and marks it with an extended attribute. See
https://docs.kernel.org/admin-guide/cgroup-v2.html and https://systemd.io/CGROUP_DELEGATION/.

The supervisor imports this module: use only parts of the standard library that import quickly.
"""

from __future__ import annotations

import os
import time

_MARKS = ("user.delegate", "trusted.delegate")
_WORKER = "worker"
_PREFIX = "job-"
_CONTROLLERS = ("memory", "pids")
_REMOVAL = 2.0
"""Seconds to wait until the group is empty. The kernel takes a few milliseconds after the kill."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandbox.supervision.limits import Limits


def prepare() -> str | None:
    """Return the parent directory of the jobs' groups, or None without delegation. Idempotent.

    The kernel limits child groups only while the parent has no process of its own. So all its
    processes first move to the child `worker`.
    """
    delegated = _delegated()
    if delegated is None:
        return None
    try:
        worker = os.path.join(delegated, _WORKER)
        os.makedirs(worker, exist_ok=True)
        for pid in _read(delegated, "cgroup.procs").split():
            _write(worker, "cgroup.procs", pid)
        offered = _read(delegated, "cgroup.controllers").split()
        for controller in _CONTROLLERS:
            if controller in offered:
                _write(delegated, "cgroup.subtree_control", f"+{controller}")
        _remove_old(delegated)
    except OSError:
        return None
    return delegated


def _delegated() -> str | None:
    own = _own()
    for path in (own, os.path.dirname(own)) if own else ():
        if _is_marked(path) and os.access(os.path.join(path, "cgroup.subtree_control"), os.W_OK):
            return path
    return None


def _own() -> str | None:
    """Return the directory of this process's group: proc_pid_cgroup(5), proc_pid_mountinfo(5)."""
    with open("/proc/self/cgroup", "rb") as file:
        places = [line[3:].strip() for line in file if line.startswith(b"0::")]
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [
            row[4] for row in map(bytes.split, file) if row[row.index(b"-") + 1] == b"cgroup2"
        ]
    if not places or not mounts:
        return None
    return os.fsdecode(mounts[0] + places[0].rstrip(b"/"))


def _is_marked(path: str) -> bool:
    for mark in _MARKS:
        try:
            if os.getxattr(path, mark) == b"1":
                return True
        except OSError:
            continue
    return False


def _remove_old(delegated: str) -> None:
    """Remove groups of killed supervisors. The kernel keeps a group that has a process."""
    for entry in os.scandir(delegated):
        if entry.name.startswith(_PREFIX):
            try:
                os.rmdir(entry.path)
            except OSError:
                continue


class Group:
    """The control group of one job.

    Args:
        parent: the result of `prepare`.
        limits: apply to all processes of the job together.
    """

    def __init__(self, parent: str, limits: Limits) -> None:
        self._limits = limits
        self._path = os.path.join(parent, f"{_PREFIX}{os.getpid()}")
        os.mkdir(self._path)
        # A controller that is not delegated has no file here. Then only the watchdog enforces it.
        self._set("memory.max", limits.memory_bytes)
        self._set("memory.swap.max", 0 if limits.memory_bytes is not None else None)
        self._set("memory.oom.group", 1)
        self._set("pids.max", limits.processes)

    def add(self, pid: int) -> None:
        """Move a process into the group. Its later descendants start in the group."""
        _write(self._path, "cgroup.procs", str(pid))

    def exceeded(self) -> str | None:
        """Return a sentence about the limit that the kernel has enforced, or None."""
        if self._count("memory.events", "oom_kill"):
            limit = (self._limits.memory_bytes or 0) / (1 << 30)
            return f"It needed more memory than SANDBOX_MEMORY_GB, which is {limit:g}, allows."
        if self._count("pids.events", "max"):
            limit = self._limits.processes or 0
            return f"It started more processes and threads than SANDBOX_PROCESSES allows: {limit}."
        return None

    def kill(self) -> None:
        """Kill all processes of the group. No fork escapes (Linux 5.14 or newer)."""
        self._set("cgroup.kill", 1)

    def remove(self) -> None:
        """Remove the group once its processes have ended."""
        deadline = time.monotonic() + _REMOVAL
        while time.monotonic() < deadline:
            try:
                os.rmdir(self._path)
            except OSError:
                time.sleep(0.01)
            else:
                return

    def _set(self, name: str, value: int | None) -> None:
        if value is not None and os.path.exists(os.path.join(self._path, name)):
            _write(self._path, name, str(value))

    def _count(self, name: str, event: str) -> int:
        try:
            rows = (line.split() for line in _read(self._path, name).splitlines())
            return int(dict(rows).get(event, "0"))
        except (OSError, ValueError):
            return 0


def _read(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), encoding="ascii") as file:
        return file.read()


def _write(directory: str, name: str, value: str) -> None:
    with open(os.path.join(directory, name), "w", encoding="ascii") as file:
        file.write(value)
