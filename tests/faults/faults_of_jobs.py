"""Faults of one job: its processes are killed, or its workflow is meddled with."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from tests.e2e.processes import claude_processes_of, processes
from tests.faults import phases
from tests.faults.fault import Fault, Strike, each
from tests.faults.faults_of_all import sweep
from tests.faults.installation import Installation
from tests.faults.situations import Situation
from tests.faults.temporal_commands import temporal
from tests.stack import eventually

WITH_CLAUDE = (
    phases.Working,
    phases.CancelInFlight,
    phases.MessageInFlight,
    phases.CompleteInFlight,
)
WITH_GIT = (
    phases.Preparing,
    phases.Fetching,
    phases.AddingWorktree,
    phases.BeforePush,
    phases.InPush,
    phases.AfterPush,
    phases.CleaningUp,
)


def kill_claude(situation: Situation) -> None:
    for process in claude_processes_of(situation.job_id):
        os.kill(process.pid, signal.SIGKILL)


def kill_supervisor(situation: Situation) -> None:
    os.kill(situation.stack.job(situation.job_id)["pid"], signal.SIGKILL)


def kill_git(situation: Situation) -> None:
    """Kill the git command that the worker waits for; it names the repository in some place."""
    name = f"{situation.repository}.git".encode()
    workers = set(situation.stack.pids("cli.py worker"))
    found = [
        process.pid
        for process in processes()
        if process.parent in workers and name in process.command + process.environment
    ]
    assert found, "a git command runs"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def _temporal(situation: Situation, command: str, *options: str) -> None:
    told = temporal(situation.stack, command, "--workflow-id", f"job-{situation.job_id}", *options)
    # One that is being cancelled may have ended while the others were told.
    assert told.returncode == 0 or situation.has_ended(), told.stderr


def terminate(situation: Situation) -> None:
    _temporal(situation, "terminate", "--reason", "a fault")


def cancel(situation: Situation) -> None:
    _temporal(situation, "cancel")


def reset_to(kind: str) -> Strike:
    """Reset each workflow; over when the Claudes of before are stopped.

    One that is let go on before that begins a command which its end then cuts off, and the
    scripted model takes a command that was begun for one that was done.
    """

    def strike_all(place: Installation, situations: Sequence[Situation]) -> None:
        before = claudes_of(situations)
        for situation in reversed(situations):
            _temporal(situation, "reset", "--type", kind, "--reason", "a fault")
        eventually(lambda: before.isdisjoint(claudes_of(situations)), 60, "Claude is stopped")

    return strike_all


def claudes_of(situations: Sequence[Situation]) -> set[int]:
    return {
        process.pid for situation in situations for process in claude_processes_of(situation.job_id)
    }


EVERY_PHASE: tuple[type[Situation], ...] = (phases.Completed, *phases.PHASES)
OF_JOBS: tuple[Fault, ...] = (
    Fault("kill -9 of Claude", each(kill_claude), WITH_CLAUDE),
    Fault("kill -9 of its supervisor", each(kill_supervisor), WITH_CLAUDE),
    Fault("kill -9 of git", each(kill_git), WITH_GIT, ends_processes=False),
    Fault(
        "workflow terminated",
        each(terminate),
        ends=frozenset({"failed"}),
        failure="workflow_ended",
        relieve=sweep,
    ),
    # It comes too late for a pull request that is just being opened.
    Fault(
        "workflow cancelled",
        each(cancel),
        ends=frozenset({"cancelled", "completed"}),
        ends_processes=False,
    ),
    Fault(
        "workflow reset to its begin",
        reset_to("FirstWorkflowTask"),
        EVERY_PHASE,
        ends_processes=False,
        relieve=sweep,
        # Claude begins again in most of the jobs at once; a job alone goes on after 3 s (measured).
        recovers_within=20.0,
    ),
    Fault(
        "workflow reset to its last task",
        reset_to("LastWorkflowTask"),
        EVERY_PHASE,
        ends_processes=False,
        relieve=sweep,
    ),
)
