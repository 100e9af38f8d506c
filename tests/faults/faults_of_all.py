"""Faults of the whole installation: which of its processes is killed, and how."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.installation import Installation
from tests.faults.situations import Situation
from tests.stack import Stack, eventually


def worker_pid(stack: Stack) -> int:
    return _only(stack.pids("cli.py worker"))


def api_pid(stack: Stack) -> int:
    return _only(stack.pids("cli.py api"))


def temporal_pid(stack: Stack) -> int:
    return _only(stack.pids("server start-dev"))


def kill_worker(place: Installation, situations: Sequence[Situation]) -> None:
    os.kill(worker_pid(place.stack), signal.SIGKILL)


def terminate_worker(place: Installation, situations: Sequence[Situation]) -> None:
    os.kill(worker_pid(place.stack), signal.SIGTERM)


def _ample_drain(root: Path) -> AbstractContextManager[dict[str, str]]:
    """Let all jobs finish that go on at once, so that none is stopped wherever it is by then."""
    return contextlib.nullcontext({"DRAIN_TIMEOUT_SECONDS": "60"})


def sweep(place: Installation) -> None:
    """Let a new worker begin, which sweeps at its start."""
    terminate_worker(place, [])


def drain_worker(place: Installation, situations: Sequence[Situation]) -> None:
    """Let jobs outlast the time that a worker has for draining."""
    pid = worker_pid(place.stack)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: pid not in place.stack.pids("cli.py worker"), 40, "the worker has ended")


def freeze_worker(place: Installation, situations: Sequence[Situation]) -> None:
    """Stop the worker, but not what it has started, for twice the heartbeat timeout."""
    pid = worker_pid(place.stack)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    os.kill(pid, signal.SIGCONT)


def kill_api(place: Installation, situations: Sequence[Situation]) -> None:
    os.kill(api_pid(place.stack), signal.SIGKILL)


def kill_temporal(place: Installation, situations: Sequence[Situation]) -> None:
    os.kill(temporal_pid(place.stack), signal.SIGKILL)


def stop_temporal_for_long(place: Installation, situations: Sequence[Situation]) -> None:
    """Be away for twice the heartbeat timeout."""
    pid = temporal_pid(place.stack)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    os.kill(pid, signal.SIGCONT)


def kill_up(place: Installation, situations: Sequence[Situation]) -> None:
    """Kill `orchestrator up` alone, and start it again as soon as its ports are free.

    The kernel tells its children to end. The worker may take longer than that.
    """
    stack = place.stack
    assert stack.process is not None
    stack.process.kill()
    stack.process.wait()
    eventually(lambda: not stack.pids("cli.py api") + stack.pids("server start-dev"), 10, "free")
    place.start()


def lose_power(place: Installation, situations: Sequence[Situation]) -> None:
    """Kill everything of the installation at once, as a reboot does. Start it again."""
    stack = place.stack
    assert stack.process is not None
    for pid in stack.pids(""):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stack.process.wait()
    eventually(lambda: not stack.pids(""), 10, "all gone")
    place.start()


WHOLE_INSTALLATION: tuple[Fault, ...] = (
    Fault("kill -9 of the worker", kill_worker),
    Fault("kill -9 of the API", kill_api, ends_processes=False),
    Fault("kill -9 of up", kill_up),
    Fault("loss of power", lose_power),
    Fault("kill -9 of Temporal", kill_temporal, ends_processes=False),
    Fault("Temporal away for 20 s", stop_temporal_for_long),
    Fault(
        "SIGTERM of the worker", terminate_worker, ends_processes=False, surroundings=_ample_drain
    ),
    Fault("SIGTERM, jobs outlast the drain", drain_worker),
    # The tasks that it was given while it was frozen have to time out first.
    Fault("worker frozen for 20 s", freeze_worker, recovers_within=25.0),
)


def _only(pids: list[int]) -> int:
    [pid] = pids
    return pid
