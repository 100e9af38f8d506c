"""Faults of one job: its processes are killed, or an operator changes its workflow."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from tests.e2e.processes import claude_processes_of, processes
from tests.faults import phases
from tests.faults.fault import Fault, Injection, each
from tests.faults.faults_of_processes import sweep
from tests.faults.installation import Installation
from tests.faults.scenarios import Scenario
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


def kill_claude(scenario: Scenario) -> None:
    for process in claude_processes_of(scenario.job_id):
        os.kill(process.pid, signal.SIGKILL)


def kill_supervisor(scenario: Scenario) -> None:
    os.kill(scenario.stack.job(scenario.job_id)["pid"], signal.SIGKILL)


def kill_git(scenario: Scenario) -> None:
    """Kill the running git command of the worker that names the repository."""
    name = f"{scenario.repository}.git".encode()
    workers = set(scenario.stack.pids("cli.py worker"))
    found = [
        process.pid
        for process in processes()
        if process.parent in workers and name in process.command + process.environment
    ]
    assert found, "a git command runs"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def _temporal(scenario: Scenario, command: str, *options: str) -> None:
    result = temporal(scenario.stack, command, "--workflow-id", f"job-{scenario.job_id}", *options)
    # A job that is being cancelled may have ended before its turn.
    assert result.returncode == 0 or scenario.has_ended(), result.stderr


def terminate(scenario: Scenario) -> None:
    _temporal(scenario, "terminate", "--reason", "a fault")


def cancel(scenario: Scenario) -> None:
    _temporal(scenario, "cancel")


def reset_to(kind: str) -> Injection:
    """Reset each workflow, and wait until the earlier Claude processes are stopped.

    If a job continued before that, the stop could interrupt a new command. The scripted model
    counts a started command as done.
    """

    def inject_all(installation: Installation, scenarios: Sequence[Scenario]) -> None:
        before = claude_pids(scenarios)
        for scenario in reversed(scenarios):
            _temporal(scenario, "reset", "--type", kind, "--reason", "a fault")
        eventually(lambda: before.isdisjoint(claude_pids(scenarios)), 60, "Claude is stopped")

    return inject_all


def claude_pids(scenarios: Sequence[Scenario]) -> set[int]:
    return {
        process.pid for scenario in scenarios for process in claude_processes_of(scenario.job_id)
    }


EVERY_PHASE: tuple[type[Scenario], ...] = (phases.Completed, *phases.PHASES)
OF_JOBS: tuple[Fault, ...] = (
    Fault("kill -9 of Claude", each(kill_claude), WITH_CLAUDE),
    Fault("kill -9 of its supervisor", each(kill_supervisor), WITH_CLAUDE),
    Fault("kill -9 of git", each(kill_git), WITH_GIT, ends_processes=False),
    Fault(
        "workflow terminated",
        each(terminate),
        ends=frozenset({"failed"}),
        failure="workflow_ended",
        clean_up=sweep,
    ),
    # Too late for a pull request that is being opened.
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
        clean_up=sweep,
        # Claude restarts in most jobs at once; a single job continues after 3 s (measured).
        recovery_seconds=20.0,
    ),
    Fault(
        "workflow reset to its last task",
        reset_to("LastWorkflowTask"),
        EVERY_PHASE,
        ends_processes=False,
        clean_up=sweep,
    ),
)
