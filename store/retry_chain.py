"""The chain of a job and the jobs that it retries."""

from __future__ import annotations

from collections.abc import AsyncIterator

from domain.job_details import KeptWork
from domain.jobs import JobState, RetryFrom
from store.protocol import Store

MAX_JOBS = 100
"""Ends a chain whose rows refer to each other in a circle; real chains are far shorter."""


async def retry_chain(store: Store, job: JobState) -> AsyncIterator[JobState]:
    """Yield `job`, then the job that it retries, and so on.

    Raises:
        DependencyFailed: the store refused the request.
        DependencyUnavailable: the store does not answer.
    """
    for _ in range(MAX_JOBS):
        yield job
        details = await store.get_job_state(job.retry_of) if job.retry_of is not None else None
        if details is None:
            return
        job = details.job


async def salvaged_work_of(store: Store, job: JobState) -> tuple[JobState, KeptWork] | None:
    """Return a job's undelivered work, and the job that produced it.

    A job that only publishes the work of another has that work, unless it has work of its own.

    Raises:
        DependencyFailed: the store refused the request.
        DependencyUnavailable: the store does not answer.
    """
    async for retried in retry_chain(store, job):
        kept = await store.kept_work(retried.id)
        if kept is not None:
            return retried, kept
        if retried.retry_from is not RetryFrom.PUBLISH:
            return None
    return None
