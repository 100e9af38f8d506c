"""The most frequent faults; `make faults` runs all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults import faults_of_jobs, faults_of_processes, faults_of_services, phases
from tests.faults.batches import Batch, in_all_phases, run_batch
from tests.faults.fault import Fault
from tests.faults.scenarios import Scenario
from tests.faults.table import heading, line


def _batch(faults: Iterable[Fault], name: str, *phases: type[Scenario]) -> Batch:
    """Return the fault of that name with these phases, or with all its phases."""
    [fault] = [each for each in faults if each.name == name]
    return [(fault, phase) for phase in phases] if phases else in_all_phases([fault])


COMMON_FAULTS = {
    "worker": _batch(faults_of_processes.PROCESSES, "kill -9 of the worker"),
    "temporal": _batch(
        faults_of_processes.PROCESSES,
        "kill -9 of Temporal",
        phases.Working,
        phases.WaitingForUser,
        phases.InPush,
        phases.MessageInFlight,
    ),
    "drain": _batch(
        faults_of_processes.PROCESSES,
        "SIGTERM, jobs outlast the drain",
        phases.Working,
        phases.MessageInFlight,
    ),
    "reset": _batch(
        faults_of_jobs.OF_JOBS,
        "workflow reset to its begin",
        phases.Working,
        phases.WaitingForUser,
        phases.Completed,
        phases.AfterPullRequest,
    ),
    "limit": in_all_phases([faults_of_services.LIMIT]),
    "outside": [
        *_batch(faults_of_services.SERVICES, "GitHub: fetch 503, 3 times"),
        *_batch(faults_of_services.SERVICES, "GitHub: push dropped, refs updated"),
        *_batch(faults_of_services.SERVICES, "GitHub: API 502, PR created"),
        *_batch(faults_of_services.SERVICES, "GitHub: API 422"),
        *_batch(faults_of_services.SERVICES, "model: stream dropped"),
    ],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("batch", COMMON_FAULTS.values(), ids=COMMON_FAULTS)
def test_no_job_is_lost_or_done_twice(batch: Batch, tmp_path: Path) -> None:
    rows = run_batch(batch, tmp_path)
    table = "\n".join([heading(), *map(line, rows)])
    assert len(rows) == len(batch)
    assert not any(row.outcome.violations for row in rows), f"\n{table}\n\n{_log(tmp_path)}"


def _log(root: Path) -> str:
    """Return the end of the installation's log, for the reader of a failed test."""
    return (root / "up.log").read_text(errors="replace")[-8000:]
