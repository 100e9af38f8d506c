"""One fault, and the jobs it strikes: brought into their phases, struck, and watched."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.e2e.processes import processes_of
from tests.faults.fault import Fault
from tests.faults.installation import Installation
from tests.faults.observation import Seen, observe, worktrees
from tests.faults.situations import Situation
from tests.faults.temporal_commands import running_workflows
from tests.stack import eventually

GONE_WITHIN = 5.0
WATCHED_FOR = 90.0
ENDED_WITHIN = 120.0


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `seconds` from the end of the strike until the job went on, None when it never did; `limit` is
    how long that may take on a machine that does nothing else.
    """

    fault: str
    phase: str
    seconds: float | None
    limit: float
    seen: Seen

    @property
    def is_late(self) -> bool:
        """Whether it took too long."""
        return self.seconds is None or self.seconds > self.limit


def run_trial(place: Installation, plan: Sequence[tuple[Fault, type[Situation]]]) -> list[Row]:
    """Bring a job into each phase, strike once with each fault, and watch all jobs to their end."""
    trial = _Trial(place, [(fault, phase(place)) for fault, phase in plan])
    trial.bring()
    trial.strike()
    trial.finish()
    return trial.rows()


class _Trial:
    """Jobs, each with the fault that strikes it."""

    def __init__(self, place: Installation, struck: list[tuple[Fault, Situation]]) -> None:
        self.place = place
        self.struck = struck
        self.situations = [situation for _, situation in struck]
        self.faults = list(dict.fromkeys(fault for fault, _ in struck))
        self.missed: set[str] = set()
        self.late: set[str] = set()
        self.went_on: dict[str, float] = {}
        self.unfinished = ""

    def bring(self) -> None:
        for fault in self.faults:
            fault.prepare(self.place)
        for situation in self.situations:
            situation.bring()
        for situation in self.situations:
            situation.engage()
            situation.asked_before = len(situation.asked())

    def strike(self) -> None:
        running = {
            situation.job_id: [process.pid for process in processes_of(situation.job_id)]
            for fault, situation in self.struck
            if fault.ends_processes
        }
        self.missed = {each.job_id for each in self.situations if not each.is_held()}
        for fault in self.faults:
            fault.strike(self.place, [each for cause, each in self.struck if cause is fault])
        struck = time.monotonic()
        self.late = _await_end(running)
        for situation in self.situations:
            situation.go_on()
        self.went_on = _watch(self.situations, struck)

    def finish(self) -> None:
        for situation in self.situations:
            with contextlib.suppress(AssertionError):
                situation.finish()
                eventually(situation.is_over, ENDED_WITHIN, "over")
        for relieve in [fault.relieve for fault in self.faults if fault.relieve]:
            relieve(self.place)
            _wait(lambda: not list(worktrees(self.place)), 60)
        _wait(lambda: not running_workflows(self.place.stack), 30)
        self.unfinished = running_workflows(self.place.stack)

    def rows(self) -> list[Row]:
        return [self._row(fault, situation) for fault, situation in self.struck]

    def _row(self, fault: Fault, situation: Situation) -> Row:
        seen = observe(situation, fault)
        if situation.job_id in self.missed:
            seen = seen.with_violation("it was not in the phase any more")
        if situation.job_id in self.late:
            seen = seen.with_violation(f"processes lived on for {GONE_WITHIN} s")
        if situation.job_id in self.unfinished:
            seen = seen.with_violation("its workflow has not ended")
        seconds = self.went_on.get(situation.job_id)
        if seconds is None:
            seen = seen.with_violation(f"did not go on within {WATCHED_FOR:.0f} s")
        return Row(fault.name, situation.phase, seconds, fault.recovers_within, seen)


def _wait(reached: Callable[[], bool], seconds: float) -> None:
    """Wait for what the rows will show."""
    with contextlib.suppress(AssertionError):
        eventually(reached, seconds)


def _await_end(running: dict[str, list[int]]) -> set[str]:
    """Return the jobs of which a process lives on for too long."""
    deadline = time.monotonic() + GONE_WITHIN
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


def _watch(situations: Sequence[Situation], struck: float) -> dict[str, float]:
    """Return after how many seconds each job went on."""
    went_on: dict[str, float] = {}
    while len(went_on) < len(situations) and time.monotonic() < struck + WATCHED_FOR:
        for situation in situations:
            if situation.job_id not in went_on and situation.is_going_on():
                went_on[situation.job_id] = time.monotonic() - struck
        time.sleep(0.1)
    return went_on
