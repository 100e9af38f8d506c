"""From what a request asks for to a new job: every check before anything is stored."""

from __future__ import annotations

from api.http.lookups import existing_job
from api.jobs.options import checked_options
from api.jobs.schemas import NewJob
from domain.errors import Conflict, InvalidRequest
from domain.job_details import KeptWork
from domain.jobs import Job, JobState, JobStatus, JobType, RetryFrom
from domain.names.branches import retry_branch_name, task_branch_name, validate_branch_name
from domain.repositories import Repository, validate_owner_name, validate_repository_name
from domain.timestamps import utc_now
from store.protocol import Store
from store.retry_chain import salvaged_work_of


async def build_job(
    store: Store, job_id: str, body: NewJob, default_priority: int
) -> tuple[Job, Repository]:
    """Return the job of this id that `body` asks for, and its repository. Stores nothing.

    Raises:
        InvalidRequest: naming what is wrong.
    """
    job_type = body.jobType or JobType.CODE
    branch = _branch(body, job_type)
    options = checked_options(body, job_type, branch)
    client_id, repository = await _repository(store, body)
    await _check_references(store, body)
    now = utc_now()
    job = Job(
        id=job_id,
        client_id=client_id,
        repository_id=repository.id,
        prompt=body.prompt,
        branch_name=branch,
        created_at=now,
        queued_at=now,
        updated_at=now,
        job_type=job_type,
        title=body.title,
        feature_id=body.featureId,
        created_by_team_member_id=body.createdByTeamMemberId,
        options=options,
        priority=body.priority or default_priority,
    )
    return job, repository


async def build_retry(
    store: Store, job_id: str, original_id: str, start: RetryFrom | None
) -> tuple[Job, Repository]:
    """Return a job that asks for the same as another, on a branch of its own. Stores nothing.

    One that publishes is a retry of the job that left the work, which need not be the original:
    that may itself have failed to publish the work of another.

    Raises:
        InvalidRequest: the original cannot be retried, or not from there.
        NotFound: there is no original.
    """
    details = await existing_job(store, original_id)
    original = details.job
    if original.status not in {JobStatus.FAILED, JobStatus.CANCELLED}:
        raise InvalidRequest(
            f"Only failed and cancelled jobs can be retried; this one is {original.status}."
        )
    if details.repository is None:
        raise InvalidRequest(
            "The job's repository is gone, so it cannot be retried. Post a new job for another."
        )
    left = await _publishable(store, original) if start is RetryFrom.PUBLISH else None
    retried, kept = left or (original, None)
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
        # The machine that has the work is asked first, and Claude's words are about it.
        host=kept.host if kept else None,
        result=retried.result if kept else None,
    )
    return job, details.repository


async def _publishable(store: Store, original: Job) -> tuple[JobState, KeptWork]:
    """Return the job that left the work, and the work."""
    if original.job_type is not JobType.CODE:
        raise InvalidRequest(
            "A task job has nothing to publish. Leave `from` out to have the conversation anew."
        )
    left = await salvaged_work_of(store, original)
    if left is None and original.phase is not None:
        raise Conflict("The job is still cleaning up. Ask again in a moment.")
    if left is None:
        raise InvalidRequest(
            "No work of this job is kept that could be published, or its machine has not kept it "
            "yet. Ask again in a minute, or leave `from` out to have it done anew."
        )
    return left


def _branch(body: NewJob, job_type: JobType) -> str:
    if body.branchName is not None:
        return validate_branch_name(body.branchName)
    if job_type is JobType.CODE:
        raise InvalidRequest("branchName is required for code jobs.")
    return task_branch_name()


async def _repository(store: Store, body: NewJob) -> tuple[str, Repository]:
    """Return the client and repository; clientId wins over githubOrg and githubRepo."""
    if body.clientId is not None:
        return body.clientId, await _of_client(store, body.clientId, body.repositoryId)
    if body.githubOrg is None or body.githubRepo is None:
        raise InvalidRequest("clientId or githubOrg and githubRepo are required.")
    owner, name = validate_owner_name(body.githubOrg), validate_repository_name(body.githubRepo)
    repository = await store.find_repository(owner, name)
    if repository is None or repository.client_id is None:
        raise InvalidRequest(
            f"Repository {owner}/{name} not found. Add it with POST /clients/:id/repository first."
        )
    return repository.client_id, repository


async def _of_client(store: Store, client_id: str, repository_id: str | None) -> Repository:
    details = await store.get_client(client_id)
    if details is None:
        raise InvalidRequest(f"clientId {client_id} names no client.")
    if not details.repositories:
        raise InvalidRequest(
            "The client has no repository. Add one with POST /clients/:id/repository first."
        )
    if repository_id is None:
        return details.repositories[0]
    chosen = [entry for entry in details.repositories if entry.id == repository_id]
    if not chosen:
        raise InvalidRequest(f"repositoryId {repository_id} names no repository of this client.")
    return chosen[0]


async def _check_references(store: Store, body: NewJob) -> None:
    if body.featureId is not None and not await store.feature_exists(body.featureId):
        raise InvalidRequest(f"featureId {body.featureId} names no feature.")
    member = body.createdByTeamMemberId
    if member is not None and not await store.team_member_exists(member):
        raise InvalidRequest(f"createdByTeamMemberId {member} names no team member.")
