"""The routes of jobs: create, list, get, cancel and retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.dependencies import Injected
from api.http.idempotency import Idempotency
from api.http.lookups import existing_job, parse_id
from api.jobs.cancel import cancel
from api.jobs.create import create
from api.jobs.retry import retry
from api.jobs.schemas import (
    CancelledJob,
    CreatedJob,
    JobList,
    JobWithMessages,
    MessagePage,
    MessageResponse,
    NewJob,
    RetriedJob,
    Retry,
)
from domain.errors import InvalidRequest
from domain.job_details import JobFilter
from domain.jobs import JobStatus
from domain.messages import Message
from store.protocol import Store

MESSAGE_PAGE = 1000
DEFAULT_LIMIT = 50
MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Offset = Annotated[int, Query(ge=0, le=2**31)]

router = APIRouter(tags=["jobs"])


@router.post("/jobs", response_model=CreatedJob, status_code=201)
async def create_job(body: NewJob, dependencies: Injected, idempotency: Idempotency) -> Response:
    """Create a job. A job that is answered with 201 is never lost."""
    async with idempotency.claim(body) as claim:
        if not claim.is_answered:
            accepted = await create(dependencies, claim, body)
            await claim.answer(201, CreatedJob.from_domain(accepted))
    return claim.response


@router.post("/jobs/{job_id}/retry", response_model=RetriedJob, status_code=201)
async def retry_job(
    job_id: str, dependencies: Injected, idempotency: Idempotency, body: Retry | None = None
) -> Response:
    """Retry a failed or cancelled job with a new job that has the same request.

    With `{"from": "publish"}`, the new job publishes the kept work without running Claude.
    """
    original_id = parse_id(job_id, "The job id")
    async with idempotency.claim(body) as claim:
        if not claim.is_answered:
            accepted = await retry(dependencies, claim, original_id, body.start if body else None)
            await claim.answer(201, RetriedJob.from_domain(accepted, original_id))
    return claim.response


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, dependencies: Injected) -> CancelledJob:
    """Cancel a queued or running job.

    The status is final at once. The answer comes when Claude has exited, after 8 s at most.
    """
    job = (await existing_job(dependencies.store, job_id)).job
    was_running = await cancel(dependencies, job.id)
    return CancelledJob(id=job.id, status=JobStatus.CANCELLED, wasRunning=was_running)


@router.get("/jobs")
async def list_jobs(
    dependencies: Injected,
    status: str | None = None,
    clientId: str | None = None,
    featureId: str | None = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> JobList:
    """List jobs, newest first. `status` is a comma-separated list."""
    where = JobFilter(
        statuses=_statuses(status),
        client_id=parse_id(clientId, "clientId") if clientId else None,
        feature_id=parse_id(featureId, "featureId") if featureId else None,
    )
    return JobList.from_domain(await dependencies.store.list_jobs(where, limit, offset))


@router.get("/jobs/{job_id}")
async def get_job(
    dependencies: Injected, job_id: str, includeMessages: bool = False
) -> JobWithMessages:
    """Get a job; with `includeMessages=true`, with all its messages."""
    store = dependencies.store
    details = await existing_job(store, job_id)
    messages = await _all_messages(store, details.job.id) if includeMessages else None
    return JobWithMessages.with_messages(details, messages)


@router.get("/jobs/{job_id}/messages")
async def get_messages(
    dependencies: Injected,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Limit = MESSAGE_PAGE,
) -> MessagePage:
    """Get the messages of a job that come after message number `after`.

    To follow a running job, pass the last `seq` as `after`.
    """
    details = await existing_job(dependencies.store, job_id)
    messages = await dependencies.store.read_messages(details.job.id, after, limit)
    return MessagePage(
        messages=[MessageResponse.from_domain(message) for message in messages],
        next_after=_next_after(messages, limit),
    )


async def _all_messages(store: Store, job_id: str) -> list[Message]:
    messages: list[Message] = []
    after: int | None = 0
    while after is not None:
        page = await store.read_messages(job_id, after, MESSAGE_PAGE)
        messages += page
        after = _next_after(page, MESSAGE_PAGE)
    return messages


def _next_after(page: list[Message], limit: int) -> int | None:
    return page[-1].seq if len(page) == limit else None


def _statuses(text: str | None) -> frozenset[JobStatus] | None:
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in set(JobStatus)]
    if unknown:
        raise InvalidRequest(
            f"status {unknown[0][:40]!r} is unknown. Use a comma-separated list of "
            f"{', '.join(JobStatus)}."
        )
    return frozenset(JobStatus(name) for name in names)
