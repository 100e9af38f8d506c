"""Which faults strike which phases, and what shares an installation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.faults_of_all import WHOLE_INSTALLATION
from tests.faults.faults_of_jobs import OF_JOBS
from tests.faults.faults_of_machines import MACHINES
from tests.faults.faults_outside import ENVIRONMENT, LIMIT, OUTSIDE
from tests.faults.installation import installed
from tests.faults.phases import PHASES
from tests.faults.situations import Situation
from tests.faults.trial import Row, run_trial

AT_ONCE = 3
"""Faults of the outside; some requests are held for a few seconds only until all are there."""

Plan = Sequence[tuple[Fault, type[Situation]]]


def all_plans() -> Iterator[Plan]:
    """Yield what shares one installation: a fault in all phases, or some faults of the outside."""
    for fault in (*WHOLE_INSTALLATION, *OF_JOBS, *MACHINES, LIMIT):
        yield in_its_phases([fault])
    for first in range(0, len(OUTSIDE), AT_ONCE):
        yield in_its_phases(OUTSIDE[first : first + AT_ONCE])


def in_its_phases(faults: Iterable[Fault]) -> Plan:
    """Return each fault with each phase in which it can happen."""
    return [(fault, phase) for fault in faults for phase in fault.phases or PHASES]


def carry_out(plan: Plan, root: Path) -> list[Row]:
    """Make an installation in an empty directory, strike, and return what was seen."""
    slots = max(1, sum(phase.holds_slot for _, phase in plan))
    first = plan[0][0]
    with first.surroundings(root) as environment:
        variables = {**ENVIRONMENT, **environment} if first in OUTSIDE else environment
        with installed(root, MAX_CONCURRENT_JOBS=str(slots), **variables) as place:
            return run_trial(place, plan)
