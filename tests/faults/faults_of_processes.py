"""Faults of the processes of an installation: killed, stopped or frozen."""

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
from tests.faults.scenarios import Scenario
from tests.stack import Stack, eventually

FREEZE_SECONDS = 20
"""Twice the heartbeat timeout."""


def worker_pid(stack: Stack) -> int:
    return _only(stack.pids("cli.py worker"))


def api_pid(stack: Stack) -> int:
    return _only(stack.pids("cli.py api"))


def temporal_pid(stack: Stack) -> int:
    return _only(stack.pids("server start-dev"))


def kill_worker(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    os.kill(worker_pid(installation.stack), signal.SIGKILL)


def terminate_worker(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    os.kill(worker_pid(installation.stack), signal.SIGTERM)


def _ample_drain(root: Path) -> AbstractContextManager[dict[str, str]]:
    """Allow enough time for all jobs to finish, so that the drain stops none of them."""
    return contextlib.nullcontext({"DRAIN_TIMEOUT_SECONDS": "60"})


def sweep(installation: Installation) -> None:
    """Restart the worker, which sweeps at its start."""
    terminate_worker(installation, [])


def drain_worker(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Stop the worker while jobs run longer than its drain time limit."""
    pid = worker_pid(installation.stack)
    os.kill(pid, signal.SIGTERM)
    eventually(
        lambda: pid not in installation.stack.pids("cli.py worker"), 40, "the worker has ended"
    )


def freeze_worker(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Freeze the worker, but not its child processes, for twice the heartbeat timeout."""
    pid = worker_pid(installation.stack)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FREEZE_SECONDS)
    os.kill(pid, signal.SIGCONT)


def kill_api(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    os.kill(api_pid(installation.stack), signal.SIGKILL)


def kill_temporal(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    os.kill(temporal_pid(installation.stack), signal.SIGKILL)


def stop_temporal_for_long(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Freeze Temporal for twice the heartbeat timeout."""
    pid = temporal_pid(installation.stack)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FREEZE_SECONDS)
    os.kill(pid, signal.SIGCONT)


def kill_up(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Kill `orchestrator up` alone, and start it again as soon as its ports are free.

    The kernel sends SIGTERM to its children. The worker may take longer to end.
    """
    stack = installation.stack
    assert stack.process is not None
    stack.process.kill()
    stack.process.wait()
    eventually(lambda: not stack.pids("cli.py api") + stack.pids("server start-dev"), 10, "free")
    installation.start()


def lose_power(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Kill all processes of the installation at once, as a power loss does, and start it again."""
    stack = installation.stack
    assert stack.process is not None
    for pid in stack.pids(""):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stack.process.wait()
    eventually(lambda: not stack.pids(""), 10, "all gone")
    installation.start()


PROCESSES: tuple[Fault, ...] = (
    Fault("kill -9 of the worker", kill_worker),
    Fault("kill -9 of the API", kill_api, ends_processes=False),
    Fault("kill -9 of up", kill_up),
    Fault("loss of power", lose_power),
    Fault("kill -9 of Temporal", kill_temporal, ends_processes=False),
    Fault("Temporal away for 20 s", stop_temporal_for_long),
    Fault("SIGTERM of the worker", terminate_worker, ends_processes=False, setup=_ample_drain),
    Fault("SIGTERM, jobs outlast the drain", drain_worker),
    # The tasks that were sent to the frozen worker must time out first.
    Fault("worker frozen for 20 s", freeze_worker, recovery_seconds=25.0),
)


def _only(pids: list[int]) -> int:
    [pid] = pids
    return pid
