"""Going through the jobs that are not over yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from domain.jobs import Job
from domain.timestamps import utc_now
from store.protocol import Store

PAGE = 1000

_CLOCKS_DIFFER = timedelta(days=1)


async def unsettled_jobs(store: Store) -> AsyncIterator[Job]:
    """Yield the live jobs and those that are cleaning up, by id; their prompts are left out.

    Raises:
        DependencyFailed: the store refused.
        DependencyUnavailable: the store does not answer.
    """
    after = ""
    while page := await store.jobs_to_reconcile(utc_now() + _CLOCKS_DIFFER, after, PAGE):
        for job in page:
            yield job
        after = page[-1].id
