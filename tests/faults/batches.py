"""Combinations of faults and phases, grouped into batches that share an installation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.fault_run import Row, run_faults
from tests.faults.faults_of_hosts import HOSTS
from tests.faults.faults_of_jobs import OF_JOBS
from tests.faults.faults_of_processes import PROCESSES
from tests.faults.faults_of_services import ENVIRONMENT, LIMIT, SERVICES
from tests.faults.installation import installed
from tests.faults.phases import PHASES
from tests.faults.scenarios import Scenario

FAULTS_AT_ONCE = 3
"""Number of service faults in a batch. Requests can be held only for a few seconds, so all jobs
must reach their phases quickly."""

Batch = Sequence[tuple[Fault, type[Scenario]]]


def all_batches() -> Iterator[Batch]:
    """Yield a batch for each fault in all its phases; faults of services share batches."""
    for fault in (*PROCESSES, *OF_JOBS, *HOSTS, LIMIT):
        yield in_all_phases([fault])
    for first in range(0, len(SERVICES), FAULTS_AT_ONCE):
        yield in_all_phases(SERVICES[first : first + FAULTS_AT_ONCE])


def in_all_phases(faults: Iterable[Fault]) -> Batch:
    """Return each fault with each of its phases."""
    return [(fault, phase) for fault in faults for phase in fault.phases or PHASES]


def run_batch(batch: Batch, root: Path) -> list[Row]:
    """Run a batch on a new installation in an empty directory."""
    slots = max(1, sum(phase.holds_slot for _, phase in batch))
    first = batch[0][0]
    with first.setup(root) as environment:
        variables = {**ENVIRONMENT, **environment} if first in SERVICES else environment
        with installed(root, MAX_CONCURRENT_JOBS=str(slots), **variables) as installation:
            return run_faults(installation, batch)
