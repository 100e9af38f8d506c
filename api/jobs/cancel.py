"""Cancel a job."""

from __future__ import annotations

from api.dependencies import Dependencies
from domain.errors import InvalidRequest
from domain.jobs import JobStatus, Phase
from domain.timestamps import utc_now
from store.protocol import Guard, JobChanges

QUEUED = Guard(frozenset({JobStatus.QUEUED}))
RUNNING = Guard(frozenset({JobStatus.RUNNING}))


async def cancel(dependencies: Dependencies, job_id: str) -> bool:
    """Cancel a job, wait up to 8 s for Claude to exit, and return whether the job was running.

    Raises:
        InvalidRequest: the job has already finished.
    """
    store = dependencies.store
    queued: JobChanges = {
        "status": JobStatus.CANCELLED,
        "completed_at": utc_now(),
        "resumes_at": None,
        "phase": None,
    }
    running: JobChanges = {**queued, "phase": Phase.CLEANING_UP}
    # In this order: a queued job may start between the two writes, but a running job is never
    # queued again.
    if await store.update_job(job_id, queued, QUEUED):
        was_running = False
    elif await store.update_job(job_id, running, RUNNING):
        was_running = True
    else:
        raise InvalidRequest("Job already finished")
    await dependencies.dispatch.cancel(job_id)
    return was_running
