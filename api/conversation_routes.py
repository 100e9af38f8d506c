"""Talking to a task job: messages in, completion at the end."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.lookups import existing_job
from api.schemas import CompletingJob, Error, NewMessage, SentMessage
from api.state import Parts, State
from domain.clock import utc_now
from domain.errors import InvalidRequest
from domain.ids import new_id
from domain.jobs import Job, JobStatus, JobType
from domain.messages import MessageType
from domain.messages import NewMessage as MessageToStore

router = APIRouter(tags=["conversation"], responses={400: {"model": Error}})


@router.post("/jobs/{job_id}/message", response_model=SentMessage)
async def send_message(job_id: str, body: NewMessage, parts: Parts) -> JSONResponse:
    """Send a message. Once this answers 200, Claude gets it exactly once, in order."""
    job = await _conversation(parts, job_id, "Only task jobs support interactive messaging")
    message = MessageToStore(new_id(), MessageType.USER_INPUT, body.message, utc_now())
    await parts.store.put_in_inbox(job.id, message)
    await parts.dispatch.send_message(job.id, message.id)
    return JSONResponse({"id": job.id, "messageSent": True, "messageId": message.id})


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
