"""From a job to those it retries, and to the work that one of them left."""

from __future__ import annotations

from collections.abc import AsyncIterator

from domain.job_details import KeptWork
from domain.jobs import Job, RetryFrom
from store.protocol import Store

MAX_JOBS = 100
"""Nobody retries that often in a row; rows that name each other in a circle would never end."""


async def lineage(store: Store, job: Job) -> AsyncIterator[Job]:
    """Yield `job`, the job that it retries, the one that this one retries, and so on.

    Raises:
        DependencyFailed: the store refused.
        DependencyUnavailable: the store does not answer.
    """
    for _ in range(MAX_JOBS):
        yield job
        details = await store.get_job(job.retry_of) if job.retry_of is not None else None
        if details is None:
            return
        job = details.job


async def salvaged_work_of(store: Store, job: Job) -> tuple[Job, KeptWork] | None:
    """Return the undelivered work that is to be had of a job, and the job that left it.

    It is what the job left itself; else, where it was only to publish the work of another, that.

    Raises:
        DependencyFailed: the store refused.
        DependencyUnavailable: the store does not answer.
    """
    async for each in lineage(store, job):
        kept = await store.kept_work(each.id)
        if kept is not None:
            return each, kept
        if each.retry_from is not RetryFrom.PUBLISH:
            return None
    return None
