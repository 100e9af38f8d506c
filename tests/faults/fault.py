"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.installation import Installation
from tests.faults.situations import Situation

Strike = Callable[[Installation, Sequence[Situation]], None]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once.

    Args:
        name: for the table.
        strike: does it. Returns when all that is needed for recovering is there again, or will be
            without help.
        phases: in which it can happen; all when empty.
        ends: the status that it gives to a job; None when it is to cost it nothing.
        ends_processes: whether what runs for the jobs at that moment must be gone within 5 s.
        leaves_worktree: whether the worktree is only removed by the next sweep.
    """

    name: str
    strike: Strike
    phases: tuple[type[Situation], ...] = ()
    ends: str | None = None
    ends_processes: bool = True
    leaves_worktree: bool = False


def each(strike: Callable[[Situation], None]) -> Strike:
    """A fault that is done to one job after the other."""

    def strike_all(place: Installation, situations: Sequence[Situation]) -> None:
        for situation in situations:
            strike(situation)

    return strike_all
