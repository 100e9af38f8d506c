"""Kill processes that outlived their run, found by the marker in their environment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.process.marker import MARKER_NAME, Marker

_PROC = Path("/proc")
_PREFIX = f"{MARKER_NAME}=".encode()
_ROUNDS = 100
"""More than enough for processes that fork while they are killed; bounds the time to 2 s."""
_POLL = 0.02
"""Seconds between two rounds; killed processes are gone after a few milliseconds."""


def kill_orphans(data_id: str, is_alive: Callable[[str], bool]) -> list[int]:
    """Kill the processes that dead workers left. Blocks for up to 2 s. Linux only.

    Only processes of this user are killed. A process that cleared its environment is not found.

    Args:
        data_id: the installation; processes of other installations are ignored.
        is_alive: returns whether the worker process with a boot id is running.

    Returns:
        The ids of the killed processes.
    """
    return _kill_all(lambda marker: marker.data_id == data_id and not is_alive(marker.boot_id))


def kill_run(marker: Marker) -> list[int]:
    """Kill the processes of one run; see `kill_orphans`."""
    return _kill_all(lambda other: other == marker)


def _kill_all(belongs: Callable[[Marker], bool]) -> list[int]:
    killed: dict[int, None] = {}
    # Repeated because a process can fork while the list is read.
    for _ in range(_ROUNDS):
        pids = [pid for pid in _own_processes() if _belongs(pid, belongs)]
        if not pids:
            break
        for pid in pids:
            _kill(pid, belongs)
            killed[pid] = None
        time.sleep(_POLL)
    return list(killed)


def _own_processes() -> Iterator[int]:
    if not _PROC.is_dir():
        return
    user = os.geteuid()
    for entry in _PROC.iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == user:
                yield int(entry.name)
        except OSError:
            continue


def _belongs(pid: int, belongs: Callable[[Marker], bool]) -> bool:
    marker = _marker_of(pid)
    return marker is not None and pid != os.getpid() and belongs(marker)


def _marker_of(pid: int) -> Marker | None:
    # proc_pid_environ(5) is empty for a zombie, so a killed process is not found again.
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    values = [entry.removeprefix(_PREFIX) for entry in variables if entry.startswith(_PREFIX)]
    return Marker.parse(values[0].decode("utf-8", "replace")) if values else None


def _kill(pid: int, belongs: Callable[[Marker], bool]) -> None:
    # The pid may have been reused since it was listed. The handle refers to one process only.
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _belongs(pid, belongs):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(handle)
