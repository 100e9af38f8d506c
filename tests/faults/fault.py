"""The definition of a fault."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.installation import Installation
from tests.faults.scenarios import Scenario

Injection = Callable[[Installation, Sequence[Scenario]], None]
Setup = Callable[[Path], AbstractContextManager[dict[str, str]]]


RECOVERY_SECONDS = 15.0
"""Seconds until a job continues if a worker is available that can resume it."""


def _no_setup(root: Path) -> AbstractContextManager[dict[str, str]]:
    return contextlib.nullcontext({})


def _no_preparation(installation: Installation) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """A fault that is injected once.

    Args:
        name: for the table.
        inject: causes the fault. Returns when everything needed for recovery is available again,
            or will be without help.
        phases: the phases in which it can happen; empty for all.
        ends: the statuses that it may cause; empty if the job must end as usual.
        failure: the failure code, if the job fails.
        ends_processes: whether the processes of the jobs must end within 5 s.
        loses_session: whether Claude's session is lost, so that steps are repeated.
        clean_up: makes the next sweep find the remains of this fault; None if there are none.
        setup: prepares the directory; yields environment variables of the installation.
        prepare: changes the installation before its first job.
        recovery_seconds: seconds from the end of `inject` until a job must continue.
    """

    name: str
    inject: Injection
    phases: tuple[type[Scenario], ...] = ()
    ends: frozenset[str] = frozenset()
    failure: str | None = None
    ends_processes: bool = True
    loses_session: bool = False
    clean_up: Callable[[Installation], None] | None = None
    setup: Setup = _no_setup
    prepare: Callable[[Installation], None] = _no_preparation
    recovery_seconds: float = RECOVERY_SECONDS

    def allows(self, scenario: Scenario) -> frozenset[str]:
        """Return the statuses in which a job may end."""
        if scenario.is_settled or not self.ends:
            return frozenset({scenario.expected})
        return self.ends


def each(inject: Callable[[Scenario], None]) -> Injection:
    """Inject a fault into one job after the other.

    The last job comes first: it may wait for a slot that the fault frees.
    """

    def inject_all(installation: Installation, scenarios: Sequence[Scenario]) -> None:
        for scenario in reversed(scenarios):
            inject(scenario)

    return inject_all
