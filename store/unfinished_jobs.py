"""Reads all jobs that are not finished."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from domain.jobs import JobState
from domain.timestamps import utc_now
from store.protocol import Store

PAGE = 1000

# `updated_at` may be in the future by the clock of another host.
_CLOCK_SKEW = timedelta(days=1)


async def unfinished_jobs(store: Store) -> AsyncIterator[JobState]:
    """Yield the live jobs and the jobs that are cleaning up, by id.

    Raises:
        DependencyFailed: the store refused the request.
        DependencyUnavailable: the store does not answer.
    """
    after = ""
    while page := await store.jobs_to_reconcile(utc_now() + _CLOCK_SKEW, after, PAGE):
        for job in page:
            yield job
        after = page[-1].id
