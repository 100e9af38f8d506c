"""Policies that are computed."""

from __future__ import annotations

import itertools

from workflows.policies import requeue_backoff


def test_the_backoff_between_slot_requests_grows_to_a_minute() -> None:
    pauses = [pause.total_seconds() for pause in itertools.islice(requeue_backoff(), 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
