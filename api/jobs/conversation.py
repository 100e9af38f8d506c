"""Talking to a task job: messages in, completion at the end."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api.dependencies import Parts, State
from api.http.idempotency import KeyClaim, OnceOnly
from api.http.lookups import checked_id, existing_job
from api.jobs.schemas import CompletingJob, Error, NewMessage, SentMessage
from api.jobs.views import Json
from domain.errors import InvalidRequest
from domain.jobs import Job, JobStatus, JobType
from domain.messages import MessageType
from domain.messages import NewMessage as MessageToStore
from domain.timestamps import utc_now

router = APIRouter(tags=["conversation"], responses={400: {"model": Error}})


@router.post("/jobs/{job_id}/message", response_model=SentMessage)
async def send_message(job_id: str, body: NewMessage, parts: Parts, once: OnceOnly) -> Response:
    """Send a message. Once this answers 200, Claude gets it exactly once, in order."""
    known = checked_id(job_id, "The job id")

    async def send(claim: KeyClaim) -> Json:
        message = MessageToStore(claim.resource_id, MessageType.USER_INPUT, body.message, utc_now())
        if not (claim.is_keyed and await parts.store.messages_by_id(known, [message.id])):
            await _conversation(parts, known, "Only task jobs support interactive messaging")
            await parts.store.put_in_inbox(known, message)
            await parts.dispatch.send_message(known, message.id)
        return {"id": known, "messageSent": True, "messageId": message.id}

    return await once.answer(200, body, send)


@router.post("/jobs/{job_id}/complete", response_model=CompletingJob)
async def complete_job(job_id: str, parts: Parts) -> JSONResponse:
    """End a conversation: at once when Claude waits, else after its turn. Repeatable."""
    job = await _conversation(parts, job_id, "Only task jobs support this endpoint")
    await parts.dispatch.complete(job.id)
    return JSONResponse({"id": job.id, "status": "completing"})


async def _conversation(parts: State, job_id: str, only_tasks: str) -> Job:
    job = (await existing_job(parts.store, job_id)).job
    if job.status is not JobStatus.RUNNING:
        raise InvalidRequest("Job is not running")
    if job.job_type is not JobType.TASK:
        raise InvalidRequest(only_tasks)
    return job
