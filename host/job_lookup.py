"""Look up the job of an activity."""

from __future__ import annotations

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Job, JobState
from domain.repositories import Repository
from store.protocol import Store


async def job_state_and_repository(store: Store, job_id: str) -> tuple[JobState, Repository]:
    """Return a job without its prompt, and its repository.

    Raises:
        JobFailure: REPOSITORY_NOT_FOUND when either was deleted.
    """
    details = await store.get_job_state(job_id)
    if details is None or details.repository is None:
        raise JobFailure(FailureCode.REPOSITORY_NOT_FOUND)
    return details.job, details.repository


async def job_and_repository(store: Store, job_id: str) -> tuple[Job, Repository]:
    """Return a job and its repository from the store.

    Raises:
        JobFailure: REPOSITORY_NOT_FOUND, if either was deleted.
    """
    details = await store.get_job(job_id)
    if details is None or details.repository is None:
        raise JobFailure(FailureCode.REPOSITORY_NOT_FOUND)
    return details.job, details.repository
