"""What a fault is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.installation import Installation
from tests.faults.situations import Situation

Strike = Callable[[Installation, Sequence[Situation]], None]
Surroundings = Callable[[Path], AbstractContextManager[dict[str, str]]]


RECOVERED_WITHIN = 15.0
"""Seconds until a job goes on when there is a worker at hand that can take it up."""


def _usual(root: Path) -> AbstractContextManager[dict[str, str]]:
    return contextlib.nullcontext({})


def _nothing(place: Installation) -> None:
    """Leave an installation as it was started."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once.

    Args:
        name: for the table.
        strike: does it. Returns when all that is needed for recovering is there again, or will be
            without help.
        phases: in which it can happen; all when empty.
        ends: the statuses that it may give to a job; none when it is to cost it nothing.
        failure: the code of the failure, where it ends in one.
        ends_processes: whether what runs for the jobs at that moment must be gone within 5 s.
        forgets: whether Claude's session is lost, so that steps are done again and the user is
            told.
        relieve: what has to be done before the next sweep finds what this fault left behind; None
            when it must leave nothing behind.
        surroundings: what the installation needs; yields variables of its environment.
        prepare: what is done to it before it gets any job.
        recovers_within: seconds from the strike's end until a job has to go on.
    """

    name: str
    strike: Strike
    phases: tuple[type[Situation], ...] = ()
    ends: frozenset[str] = frozenset()
    failure: str | None = None
    ends_processes: bool = True
    forgets: bool = False
    relieve: Callable[[Installation], None] | None = None
    surroundings: Surroundings = _usual
    prepare: Callable[[Installation], None] = _nothing
    recovers_within: float = RECOVERED_WITHIN

    def allows(self, situation: Situation) -> frozenset[str]:
        """Return the statuses in which a job may end."""
        if situation.is_settled or not self.ends:
            return frozenset({situation.expected})
        return self.ends


def each(strike: Callable[[Situation], None]) -> Strike:
    """A fault that is done to one job after the other.

    The one that was brought last comes first: it may wait for a slot that the fault frees.
    """

    def strike_all(place: Installation, situations: Sequence[Situation]) -> None:
        for situation in reversed(situations):
            strike(situation)

    return strike_all
