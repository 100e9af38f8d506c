"""Bring jobs into their phases, inject faults, and watch the jobs until they end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.e2e.processes import processes_of
from tests.faults.fault import Fault
from tests.faults.installation import Installation
from tests.faults.observation import Outcome, observe, worktrees
from tests.faults.scenarios import Scenario
from tests.faults.temporal_commands import running_workflows
from tests.stack import eventually

EXIT_SECONDS = 5.0
"""Time for processes to end after a fault; the supervisor's grace is 2 s."""

CONTINUE_SECONDS = 90.0
"""How long to watch for a job to continue; later than every limit, to measure late jobs too."""

END_SECONDS = 120.0
"""Time for a job to end once it continues; a whole job takes less than half of it."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `seconds` is the time from the fault until the job continued; None if it never did. `limit` is
    the allowed time on an otherwise idle host.
    """

    fault: str
    phase: str
    seconds: float | None
    limit: float
    outcome: Outcome

    @property
    def is_late(self) -> bool:
        """Whether the job continued too late or never."""
        return self.seconds is None or self.seconds > self.limit


def run_faults(
    installation: Installation, batch: Sequence[tuple[Fault, type[Scenario]]]
) -> list[Row]:
    """Bring a job into each phase, inject each fault once, and watch all jobs until they end."""
    run = _FaultRun(installation, [(fault, phase(installation)) for fault, phase in batch])
    run.reach_phases()
    run.inject()
    run.finish()
    return run.rows()


class _FaultRun:
    """One run with several jobs, each with the fault that is injected into it."""

    def __init__(self, installation: Installation, injected: list[tuple[Fault, Scenario]]) -> None:
        self.installation = installation
        self.injected = injected
        self.scenarios = [scenario for _, scenario in injected]
        self.faults = list(dict.fromkeys(fault for fault, _ in injected))
        self.missed: set[str] = set()
        self.late: set[str] = set()
        self.continued_after: dict[str, float] = {}
        self.unfinished = ""

    def reach_phases(self) -> None:
        for fault in self.faults:
            fault.prepare(self.installation)
        for scenario in self.scenarios:
            scenario.reach_phase()
        for scenario in self.scenarios:
            scenario.start_request()
            scenario.calls_before = len(scenario.model_calls())

    def inject(self) -> None:
        running = {
            scenario.job_id: [process.pid for process in processes_of(scenario.job_id)]
            for fault, scenario in self.injected
            if fault.ends_processes
        }
        self.missed = {each.job_id for each in self.scenarios if not each.is_held()}
        for fault in self.faults:
            fault.inject(
                self.installation, [each for cause, each in self.injected if cause is fault]
            )
        injected = time.monotonic()
        self.late = _jobs_with_late_processes(running)
        for scenario in self.scenarios:
            scenario.release()
        self.continued_after = _watch(self.scenarios, injected)

    def finish(self) -> None:
        for scenario in self.scenarios:
            with contextlib.suppress(AssertionError):
                scenario.finish()
                eventually(scenario.is_finished, END_SECONDS, "over")
        for clean_up in [fault.clean_up for fault in self.faults if fault.clean_up]:
            clean_up(self.installation)
            _wait(lambda: not list(worktrees(self.installation)), 60)
        _wait(lambda: not running_workflows(self.installation.stack), 30)
        self.unfinished = running_workflows(self.installation.stack)

    def rows(self) -> list[Row]:
        return [self._row(fault, scenario) for fault, scenario in self.injected]

    def _row(self, fault: Fault, scenario: Scenario) -> Row:
        outcome = observe(scenario, fault)
        if scenario.job_id in self.missed:
            outcome = outcome.with_violation("it had already left the phase")
        if scenario.job_id in self.late:
            outcome = outcome.with_violation(f"processes still ran after {EXIT_SECONDS} s")
        if scenario.job_id in self.unfinished:
            outcome = outcome.with_violation("its workflow has not ended")
        seconds = self.continued_after.get(scenario.job_id)
        if seconds is None:
            outcome = outcome.with_violation(f"did not continue within {CONTINUE_SECONDS:.0f} s")
        return Row(fault.name, scenario.phase, seconds, fault.recovery_seconds, outcome)


def _wait(reached: Callable[[], bool], seconds: float) -> None:
    """Wait without failing: the rows report a condition that is not reached."""
    with contextlib.suppress(AssertionError):
        eventually(reached, seconds)


def _jobs_with_late_processes(running: dict[str, list[int]]) -> set[str]:
    """Return the jobs with a process that does not end in time."""
    deadline = time.monotonic() + EXIT_SECONDS
    while True:
        late = {job for job, pids in running.items() if any(map(_is_alive, pids))}
        if not late or time.monotonic() > deadline:
            return late
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def _watch(scenarios: Sequence[Scenario], injected: float) -> dict[str, float]:
    """Return the seconds after which each job continued."""
    continued_after: dict[str, float] = {}
    while len(continued_after) < len(scenarios) and time.monotonic() < injected + CONTINUE_SECONDS:
        for scenario in scenarios:
            if scenario.job_id not in continued_after and scenario.has_continued():
                continued_after[scenario.job_id] = time.monotonic() - injected
        time.sleep(0.1)
    return continued_after
