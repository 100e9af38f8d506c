"""The conversation of a task job: messages from the user, and its completion."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from api.dependencies import Dependencies, Injected
from api.http.fields import text_up_to
from api.http.idempotency import Idempotency, KeyClaim
from api.http.lookups import existing_job, parse_id
from domain.errors import InvalidRequest
from domain.jobs import Job, JobStatus, JobType
from domain.messages import MAX_USER_MESSAGE_BYTES, MessageType, NewMessage
from domain.timestamps import utc_now
from store.protocol import Store

router = APIRouter(tags=["conversation"])


class UserMessage(BaseModel):
    """POST /jobs/:id/message."""

    message: Annotated[str, text_up_to(MAX_USER_MESSAGE_BYTES)]


class SentMessage(BaseModel):
    """A message that was accepted. `id` is the job's."""

    id: str
    messageSent: bool
    messageId: str


class CompletingJob(BaseModel):
    """A job whose conversation ends."""

    id: str
    status: Literal["completing"]


@router.post("/jobs/{job_id}/message", response_model=SentMessage)
async def send_message(
    job_id: str, body: UserMessage, dependencies: Injected, idempotency: Idempotency
) -> Response:
    """Send a message. After the answer 200, Claude gets it exactly once, in order."""
    job_id = parse_id(job_id, "The job id")
    async with idempotency.claim(body) as claim:
        if not claim.is_answered:
            await _send(dependencies, claim, job_id, body.message)
            sent = SentMessage(id=job_id, messageSent=True, messageId=claim.resource_id)
            await claim.answer(200, sent)
    return claim.response


@router.post("/jobs/{job_id}/complete")
async def complete_job(job_id: str, dependencies: Injected) -> CompletingJob:
    """End a conversation, after the current turn if there is one. Idempotent."""
    job = await _conversation(dependencies.store, job_id, "Only task jobs support this endpoint")
    await dependencies.dispatch.complete(job.id)
    return CompletingJob(id=job.id, status="completing")


async def _send(dependencies: Dependencies, claim: KeyClaim, job_id: str, text: str) -> None:
    store, message_id = dependencies.store, claim.resource_id
    # A request that was cut off after its delivery: the job may have ended since.
    if claim.is_keyed and await store.messages_by_id(job_id, [message_id]):
        return
    await _conversation(store, job_id, "Only task jobs support interactive messaging")
    message = NewMessage(message_id, MessageType.USER_INPUT, text, utc_now())
    await store.put_in_inbox(job_id, message)
    await dependencies.dispatch.send_message(job_id, message_id)


async def _conversation(store: Store, job_id: str, only_tasks: str) -> Job:
    job = (await existing_job(store, job_id)).job
    if job.status is not JobStatus.RUNNING:
        raise InvalidRequest("Job is not running")
    if job.job_type is not JobType.TASK:
        raise InvalidRequest(only_tasks)
    return job
