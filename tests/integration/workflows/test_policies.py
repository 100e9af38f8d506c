"""Numbers that follow a rule."""

from __future__ import annotations

import itertools

from workflows.policies import requeue_backoff


def test_asking_for_a_slot_slows_down() -> None:
    pauses = [pause.total_seconds() for pause in itertools.islice(requeue_backoff(), 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
