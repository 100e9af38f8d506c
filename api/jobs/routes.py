"""Jobs: list, read, cancel."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from api.dependencies import Parts
from api.http.lookups import checked_id, existing_job
from api.jobs.schemas import (
    CancelledJob,
    JobAnswer,
    JobsAnswer,
    MessagesAnswer,
)
from api.jobs.views import job_view, message_view
from domain.errors import InvalidRequest
from domain.job_details import JobFilter
from domain.jobs import JobStatus, Phase
from domain.messages import Message
from domain.timestamps import utc_now
from store.protocol import Guard, JobChanges, Store

MESSAGE_PAGE = 1000
DEFAULT_LIMIT = 50
MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Offset = Annotated[int, Query(ge=0, le=2**31)]

router = APIRouter(tags=["jobs"])


@router.get("/jobs", response_model=JobsAnswer)
async def list_jobs(
    parts: Parts,
    status: str | None = None,
    clientId: str | None = None,
    featureId: str | None = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> JSONResponse:
    """List jobs, newest first; `status` is a comma-separated list."""
    where = JobFilter(
        statuses=_statuses(status),
        client_id=checked_id(clientId, "clientId") if clientId else None,
        feature_id=checked_id(featureId, "featureId") if featureId else None,
    )
    page = await parts.store.list_jobs(where, limit, offset)
    return JSONResponse({"jobs": [job_view(job) for job in page.jobs], "total": page.total})


@router.get("/jobs/{job_id}", response_model=JobAnswer)
async def get_job(parts: Parts, job_id: str, includeMessages: bool = False) -> JSONResponse:
    """Get a job; with `includeMessages=true`, its whole transcript."""
    details = await existing_job(parts.store, job_id)
    view = job_view(details)
    view["messages"] = None
    if includeMessages:
        messages = await _all_messages(parts.store, details.job.id)
        view["messages"] = [message_view(message) for message in messages]
    return JSONResponse(view)


@router.get("/jobs/{job_id}/messages", response_model=MessagesAnswer)
async def get_messages(
    parts: Parts,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Limit = MESSAGE_PAGE,
) -> JSONResponse:
    """Get the lines of a transcript that come after line `after`, to read on as it grows."""
    details = await existing_job(parts.store, job_id)
    messages = await parts.store.read_messages(details.job.id, after, limit)
    return JSONResponse(
        {
            "messages": [message_view(message) for message in messages],
            "next_after": _next_after(messages, limit),
        }
    )


@router.post("/jobs/{job_id}/cancel", response_model=CancelledJob)
async def cancel_job(job_id: str, parts: Parts) -> JSONResponse:
    """Cancel a queued or running job.

    The status is final at once; the answer comes when Claude is gone too, after 8 s at the latest.
    """
    job = (await existing_job(parts.store, job_id)).job
    changes: JobChanges = {
        "status": JobStatus.CANCELLED,
        "completed_at": utc_now(),
        "resumes_at": None,
    }
    was_running = False
    for status in (JobStatus.QUEUED, JobStatus.RUNNING):
        was_running = status is JobStatus.RUNNING
        phase = Phase.CLEANING_UP if was_running else None
        if await parts.store.update_job(
            job.id, {**changes, "phase": phase}, Guard(frozenset({status}))
        ):
            break
    else:
        raise InvalidRequest("Job already finished")
    await parts.dispatch.cancel(job.id)
    return JSONResponse({"id": job.id, "status": JobStatus.CANCELLED, "wasRunning": was_running})


async def _all_messages(store: Store, job_id: str) -> list[Message]:
    messages: list[Message] = []
    after: int | None = 0
    while after is not None:
        page = await store.read_messages(job_id, after, MESSAGE_PAGE)
        messages += page
        after = _next_after(page, MESSAGE_PAGE)
    return messages


def _next_after(page: list[Message], limit: int) -> int | None:
    """Return where to continue; None at the end."""
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
