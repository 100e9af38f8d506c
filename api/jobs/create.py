"""Create a job: check the request, then accept the job."""

from __future__ import annotations

from api.dependencies import Dependencies
from api.http.idempotency import KeyClaim
from api.jobs.accept import AcceptedJob, accept, find_accepted
from api.jobs.options import job_options
from api.jobs.schemas import NewJob
from domain.errors import InvalidRequest
from domain.jobs import Job, JobType
from domain.names.branches import task_branch_name, validate_branch_name
from domain.repositories import Repository, validate_owner_name, validate_repository_name
from domain.timestamps import utc_now
from store.protocol import Store


async def create(dependencies: Dependencies, claim: KeyClaim, body: NewJob) -> AcceptedJob:
    """Accept the job that `body` describes. Idempotent.

    Raises:
        Conflict: another job holds the branch.
        InvalidRequest: a field is wrong; the error names it.
    """
    store = dependencies.store
    if accepted := await find_accepted(store, claim):
        return accepted
    job, repository = await _build(store, claim.resource_id, body, dependencies.default_priority)
    return await accept(dependencies, claim, job, repository)


async def _build(
    store: Store, job_id: str, body: NewJob, default_priority: int
) -> tuple[Job, Repository]:
    job_type = body.jobType or JobType.CODE
    branch = _branch(body, job_type)
    options = job_options(body, job_type, branch)
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


def _branch(body: NewJob, job_type: JobType) -> str:
    if body.branchName is not None:
        return validate_branch_name(body.branchName)
    if job_type is JobType.CODE:
        raise InvalidRequest("branchName is required for code jobs.")
    return task_branch_name()


async def _repository(store: Store, body: NewJob) -> tuple[str, Repository]:
    """Return the id of the client, and the repository."""
    # With a clientId, githubOrg and githubRepo are ignored.
    if body.clientId is not None:
        return body.clientId, await _repository_of(store, body.clientId, body.repositoryId)
    if body.githubOrg is None or body.githubRepo is None:
        raise InvalidRequest("clientId, or githubOrg and githubRepo, are required.")
    owner, name = validate_owner_name(body.githubOrg), validate_repository_name(body.githubRepo)
    repository = await store.find_repository(owner, name)
    if repository is None or repository.client_id is None:
        raise InvalidRequest(
            f"Repository {owner}/{name} not found. Add it with POST /clients/:id/repository first."
        )
    return repository.client_id, repository


async def _repository_of(store: Store, client_id: str, repository_id: str | None) -> Repository:
    details = await store.get_client(client_id)
    if details is None:
        raise InvalidRequest(f"clientId {client_id} is not the id of a client.")
    if not details.repositories:
        raise InvalidRequest(
            "The client has no repository. Add one with POST /clients/:id/repository first."
        )
    if repository_id is None:
        return details.repositories[0]
    matches = [entry for entry in details.repositories if entry.id == repository_id]
    if not matches:
        raise InvalidRequest(
            f"repositoryId {repository_id} is not the id of a repository of this client."
        )
    return matches[0]


async def _check_references(store: Store, body: NewJob) -> None:
    if body.featureId is not None and not await store.feature_exists(body.featureId):
        raise InvalidRequest(f"featureId {body.featureId} is not the id of a feature.")
    member = body.createdByTeamMemberId
    if member is not None and not await store.team_member_exists(member):
        raise InvalidRequest(f"createdByTeamMemberId {member} is not the id of a team member.")
