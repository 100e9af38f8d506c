"""One fault, and the jobs it strikes: brought into their phases, struck, and watched."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.e2e.processes import processes_of
from tests.faults.fault import Fault
from tests.faults.faults_of_all import terminate_worker
from tests.faults.installation import Installation
from tests.faults.observation import Seen, observe
from tests.faults.situations import Situation
from tests.stack import eventually

GONE_WITHIN = 5.0
RECOVERED_WITHIN = 90.0
ENDED_WITHIN = 120.0


@dataclass(frozen=True)
class Row:
    """One line of the table. `seconds` is None when the job never went on."""

    fault: str
    phase: str
    seconds: float | None
    seen: Seen


def run_trial(
    place: Installation, fault: Fault, phases: Sequence[type[Situation]]
) -> Iterator[Row]:
    """Bring a job into every phase, strike once, and yield what became of each job."""
    situations = [phase(place) for phase in phases]
    for situation in situations:
        situation.bring()
    for situation in situations:
        situation.engage()
        situation.asked_before = len(situation.asked())
    running = {each.job_id: [p.pid for p in processes_of(each.job_id)] for each in situations}
    struck = time.monotonic()
    fault.strike(place, situations)
    late = _await_end(running) if fault.ends_processes else {}
    for situation in situations:
        situation.go_on()
    went_on = _watch(situations, struck)
    for situation in situations:
        with contextlib.suppress(AssertionError):
            situation.finish()
            eventually(situation.is_over, ENDED_WITHIN, "over")
    if fault.leaves_worktree:
        _sweep(place, situations)
    for situation in situations:
        expected = frozenset({fault.ends or situation.expected, situation.expected})
        seen = observe(situation, expected)
        if situation.job_id in late:
            seen = _with_violation(seen, f"processes lived on for {GONE_WITHIN} s")
        yield Row(fault.name, situation.phase, went_on.get(situation.job_id), seen)


def _sweep(place: Installation, situations: Sequence[Situation]) -> None:
    """Let another worker begin, which sweeps at its start."""
    paths = [situation.stack.job(situation.job_id)["worktree_path"] for situation in situations]
    terminate_worker(place, situations)
    with contextlib.suppress(AssertionError):
        eventually(lambda: not any(path and Path(path).exists() for path in paths), 60, "swept")


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
    while len(went_on) < len(situations) and time.monotonic() < struck + RECOVERED_WITHIN:
        for situation in situations:
            if situation.job_id not in went_on and situation.is_going_on():
                went_on[situation.job_id] = time.monotonic() - struck
        time.sleep(0.1)
    return went_on


def _with_violation(seen: Seen, violation: str) -> Seen:
    return replace(seen, violations=(*seen.violations, violation))
