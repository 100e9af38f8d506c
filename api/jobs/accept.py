"""Accept a new job: once its row is stored, it is never lost."""

from __future__ import annotations

from dataclasses import dataclass

from api.dependencies import Dependencies
from api.http.idempotency import KeyClaim
from api.http.lookups import existing_job
from domain.errors import Conflict, DependencyUnavailable
from domain.jobs import Job
from domain.repositories import Repository
from store.protocol import Store


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """A stored job and its position in the queue, from 1; 0 if that is not known."""

    job: Job
    position: int


async def find_accepted(store: Store, claim: KeyClaim) -> AcceptedJob | None:
    """Return the job that an earlier request with the same key stored, if any."""
    if not claim.is_keyed:
        return None
    details = await store.get_job(claim.resource_id)
    return await _accepted(store, details.job) if details else None


async def accept(
    dependencies: Dependencies, claim: KeyClaim, job: Job, repository: Repository
) -> AcceptedJob:
    """Store a job and start its workflow. Idempotent.

    Raises:
        Conflict: another job holds the branch.
    """
    store = dependencies.store
    try:
        await store.create_job(job)
    except Conflict:
        # A concurrent request with the same key may have stored this job: no conflict.
        if await store.get_job(job.id) is None:
            raise
    if claim.is_keyed:
        # Both requests built the job; the row holds the first of them.
        job = (await existing_job(store, job.id)).job
    accepted = await _accepted(store, job)
    await dependencies.dispatch.start(job, repository)
    return accepted


async def _accepted(store: Store, job: Job) -> AcceptedJob:
    try:
        return AcceptedJob(job, await store.queue_position(job.id))
    except DependencyUnavailable:
        # The job is accepted. After an error the caller would post it again.
        return AcceptedJob(job, 0)
