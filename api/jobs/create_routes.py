"""New jobs: created, or made of one that did not succeed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from api.dependencies import Parts, State
from api.http.idempotency import KeyClaim, OnceOnly
from api.http.lookups import checked_id, existing_job
from api.jobs.create import build_job, build_retry
from api.jobs.schemas import CreatedJob, Error, NewJob, RetriedJob, Retry
from api.jobs.views import Json, iso
from domain.errors import Conflict, DependencyUnavailable
from domain.jobs import Job
from domain.repositories import Repository
from store.protocol import Store

router = APIRouter(tags=["jobs"])

Build = Callable[[], Awaitable[tuple[Job, Repository]]]


@router.post("/jobs", response_model=CreatedJob, status_code=201, responses={409: {"model": Error}})
async def create_job(body: NewJob, parts: Parts, once: OnceOnly) -> Response:
    """Create a job. It is accepted for good once this answers."""

    async def create(claim: KeyClaim) -> Json:
        build = partial(build_job, parts.store, claim.resource_id, body, parts.default_priority)
        job, position = await _accept(parts, claim, build)
        return {
            "id": job.id,
            "status": job.status,
            "position": position,
            "branchName": job.branch_name,
            "createdAt": iso(job.created_at),
        }

    return await once.answer(201, body, create)


@router.post("/jobs/{job_id}/retry", response_model=RetriedJob, status_code=201)
async def retry_job(
    job_id: str, parts: Parts, once: OnceOnly, body: Retry | None = None
) -> Response:
    """Create a new job that asks for the same; only of failed and cancelled jobs.

    With `{"from": "publish"}` it publishes the work that the job left, without running Claude.
    """
    original_id = checked_id(job_id, "The job id")
    start = body.start if body else None

    async def retry(claim: KeyClaim) -> Json:
        build = partial(build_retry, parts.store, claim.resource_id, original_id, start)
        job, _ = await _accept(parts, claim, build)
        return {
            "id": job.id,
            "originalJobId": original_id,
            "status": job.status,
            "branchName": job.branch_name,
        }

    return await once.answer(201, body, retry)


async def _accept(parts: State, claim: KeyClaim, build: Build) -> tuple[Job, int]:
    """Store the job of a claim and start its workflow, unless another request has stored it.

    Returns:
        The job, and its place in the queue; 0 if not known.
    """
    known = await parts.store.get_job(claim.resource_id) if claim.is_keyed else None
    if known is not None:
        return known.job, await _position(parts.store, known.job)
    job, repository = await build()
    await _store(parts.store, job)
    if claim.is_keyed:
        # Of two requests that build it at once, one stores its own.
        job = (await existing_job(parts.store, job.id)).job
    position = await _position(parts.store, job)
    await parts.dispatch.start(job, repository)
    return job, position


async def _store(store: Store, job: Job) -> None:
    """Store a job; that its branch is held by a job of its own id is no conflict."""
    try:
        await store.create_job(job)
    except Conflict:
        if await store.get_job(job.id) is None:
            raise


async def _position(store: Store, job: Job) -> int:
    try:
        return await store.queue_position(job.id)
    except DependencyUnavailable:
        # The job is accepted; an error would make the caller post it again.
        return 0
