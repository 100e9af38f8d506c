"""Retry a job: a new job with the same request, on a branch of its own."""

from __future__ import annotations

from api.dependencies import Dependencies
from api.http.idempotency import KeyClaim
from api.http.lookups import existing_job
from api.jobs.accept import AcceptedJob, accept, find_accepted
from domain.errors import Conflict, InvalidRequest
from domain.job_details import KeptWork
from domain.jobs import Job, JobState, JobStatus, JobType, RetryFrom
from domain.names.branches import retry_branch_name
from domain.repositories import Repository
from domain.timestamps import utc_now
from store.protocol import Store
from store.retry_chain import salvaged_work_of


async def retry(
    dependencies: Dependencies, claim: KeyClaim, original_id: str, start: RetryFrom | None
) -> AcceptedJob:
    """Accept a job that retries another from `start`. Idempotent.

    Raises:
        Conflict: the original is still cleaning up.
        InvalidRequest: the original cannot be retried, or not from `start`.
        NotFound: the original does not exist.
    """
    store = dependencies.store
    if accepted := await find_accepted(store, claim):
        return accepted
    job, repository = await _build(store, claim.resource_id, original_id, start)
    return await accept(dependencies, claim, job, repository)


async def _build(
    store: Store, job_id: str, original_id: str, start: RetryFrom | None
) -> tuple[Job, Repository]:
    details = await existing_job(store, original_id)
    original = details.job
    if original.status not in {JobStatus.FAILED, JobStatus.CANCELLED}:
        raise InvalidRequest(
            f"Only failed and cancelled jobs can be retried; this one is {original.status}."
        )
    if details.repository is None:
        raise InvalidRequest(
            "The repository of this job was removed, so the job cannot be retried. Post a new job "
            "for another repository."
        )
    # A retry that publishes is a retry of the job that produced the work. That need not be the
    # original, which may itself have failed to publish the work of another job.
    retried: JobState = original
    work: KeptWork | None = None
    if start is RetryFrom.PUBLISH:
        retried, work = await _publishable(store, original)
    now = utc_now()
    job = Job(
        id=job_id,
        client_id=original.client_id,
        repository_id=original.repository_id,
        prompt=original.prompt,
        branch_name=retry_branch_name(original.branch_name),
        created_at=now,
        queued_at=now,
        updated_at=now,
        job_type=original.job_type,
        title=original.title,
        feature_id=original.feature_id,
        created_by_team_member_id=original.created_by_team_member_id,
        options=original.options,
        priority=original.priority,
        retry_of=retried.id,
        retry_from=start,
        # The job goes to the host that has the work, and Claude's summary of it is the result.
        host=work.host if work else None,
        result=retried.result if work else None,
    )
    return job, details.repository


async def _publishable(store: Store, original: Job) -> tuple[JobState, KeptWork]:
    """Return the job that produced the kept work, and the work."""
    if original.job_type is not JobType.CODE:
        raise InvalidRequest(
            "A task job has nothing to publish. Leave `from` out to start the conversation again."
        )
    kept = await salvaged_work_of(store, original)
    if kept is None and original.phase is not None:
        raise Conflict("The job is still cleaning up. Try again in a moment.")
    if kept is None:
        raise InvalidRequest(
            "No work of this job is kept that could be published, or its host has not saved it "
            "yet. Try again in a minute, or leave `from` out to run Claude again."
        )
    return kept
