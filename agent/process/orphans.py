"""Ends processes that outlived the run they belong to, found by the marker in their environment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.claude.environment import MARKER_NAME, Marker

_PROC = Path("/proc")
_PREFIX = f"{MARKER_NAME}=".encode()
_ROUNDS = 100
_POLL = 0.02


def kill_orphans(data_id: str, is_alive: Callable[[str], bool]) -> list[int]:
    """Kill the processes of worker lives that are over; blocks for up to 2 s.

    Args:
        data_id: only processes whose marker has it are looked at.
        is_alive: whether the worker life with this boot id still runs.

    Returns:
        The ids of the processes that were sent SIGKILL. Only this user's, and only on Linux;
        a process that cleared its environment is not found.
    """
    return _end(lambda marker: marker.data_id == data_id and not is_alive(marker.boot_id))


def kill_run(marker: Marker) -> list[int]:
    """Kill the processes of one run; as `kill_orphans`."""
    return _end(lambda found: found == marker)


def _end(belongs: Callable[[Marker], bool]) -> list[int]:
    ended: dict[int, None] = {}
    # More than once: a process may be forked while the list is read.
    for _ in range(_ROUNDS):
        found = [pid for pid in _own_processes() if _belongs(pid, belongs)]
        if not found:
            break
        for pid in found:
            _kill(pid, belongs)
            ended[pid] = None
        time.sleep(_POLL)
    return list(ended)


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
    """Read proc_pid_environ(5); it is empty for a zombie, so those are not found again."""
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    values = [entry.removeprefix(_PREFIX) for entry in variables if entry.startswith(_PREFIX)]
    return Marker.parse(values[0].decode("utf-8", "replace")) if values else None


def _kill(pid: int, belongs: Callable[[Marker], bool]) -> None:
    """Kill `pid` if it is still the process that was found, and not a new one with its number."""
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
