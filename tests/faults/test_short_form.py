"""The faults that happen most, in every phase; `make faults` has all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults import faults_of_all, faults_of_jobs, faults_outside, phases
from tests.faults.fault import Fault
from tests.faults.plans import Plan, carry_out, in_its_phases
from tests.faults.situations import Situation
from tests.faults.table import heading, line


def _plan(faults: Iterable[Fault], name: str, *found_in: type[Situation]) -> Plan:
    """Return the fault of that name, in these phases or in all of its own."""
    [fault] = [each for each in faults if each.name == name]
    return [(fault, phase) for phase in found_in] if found_in else in_its_phases([fault])


SHORT_FORM = {
    "worker": _plan(faults_of_all.WHOLE_INSTALLATION, "kill -9 of the worker"),
    "temporal": _plan(
        faults_of_all.WHOLE_INSTALLATION,
        "kill -9 of Temporal",
        phases.Working,
        phases.WaitingForUser,
        phases.InPush,
        phases.MessageInFlight,
    ),
    "drain": _plan(
        faults_of_all.WHOLE_INSTALLATION,
        "SIGTERM, jobs outlast the drain",
        phases.Working,
        phases.MessageInFlight,
    ),
    "reset": _plan(
        faults_of_jobs.OF_JOBS,
        "workflow reset to its begin",
        phases.Working,
        phases.WaitingForUser,
        phases.Completed,
        phases.AfterPullRequest,
    ),
    "limit": in_its_phases([faults_outside.LIMIT]),
    "outside": [
        *_plan(faults_outside.OUTSIDE, "GitHub: fetch 503, 3 times"),
        *_plan(faults_outside.OUTSIDE, "GitHub: push dropped, refs updated"),
        *_plan(faults_outside.OUTSIDE, "GitHub: API 502, PR created"),
        *_plan(faults_outside.OUTSIDE, "GitHub: API 422"),
        *_plan(faults_outside.OUTSIDE, "model: stream dropped"),
    ],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plan", SHORT_FORM.values(), ids=SHORT_FORM)
def test_what_is_promised_holds(plan: Plan, tmp_path: Path) -> None:
    rows = carry_out(plan, tmp_path)
    table = "\n".join([heading(), *map(line, rows)])
    assert len(rows) == len(plan)
    assert not any(row.seen.violations for row in rows), f"\n{table}\n\n{_log(tmp_path)}"


def _log(root: Path) -> str:
    """The end of what the installation printed, for the one who reads the failure."""
    return (root / "up.log").read_text(errors="replace")[-8000:]
