"""Store writes that belong to no machine; they run on the `records` task queue of any worker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import activity

from domain.failures import FailureCode, TimeLimit
from domain.jobs import LIVE, JobStatus, Outcome, Phase
from domain.timestamps import utc_now
from host.job_progress import Progress, running_under
from host.slots.leases import LeaseKey
from store.protocol import Guard, JobChanges, Store

RECORDS_TASK_QUEUE = "records"

LATELY = timedelta(minutes=2)
"""Longer than a machine counts as live: after an outage of the store none has reported."""


@dataclass(frozen=True, slots=True)
class FinishJobInput:
    """How a job ends. `leaves_workspace` says that a machine still has to clean up after it."""

    job_id: str
    status: JobStatus
    outcome: Outcome | None = None
    failure_code: FailureCode | None = None
    error: str | None = None
    clock: TimeLimit | None = None
    leaves_workspace: bool = False


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A job that waits for a slot again, for its `turn`-th time."""

    job_id: str
    turn: int


@dataclass(frozen=True, slots=True)
class WaitForLimitInput:
    """A job that can do nothing before `resumes_at`; `reason` is a sentence for its user."""

    key: LeaseKey
    resumes_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A user's message that the job accepts."""

    job_id: str
    message_id: str


class RecordActivities:
    """What the workflow decides, written down."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress(store)

    @activity.defn
    async def enqueue_job(self, entry: QueueEntry) -> None:
        """Record that a job waits for a slot again, at the end of the queue. Repeatable."""
        changes: JobChanges = {"phase": Phase.WAITING_FOR_SLOT, "queued_at": utc_now()}
        await self._store.update_job(entry.job_id, changes, Guard(LIVE))

    @activity.defn
    async def finish_job(self, ending: FinishJobInput) -> JobStatus:
        """Write the final status, unless the job has one already. Repeatable.

        Returns:
            The status the job has now; a job cancelled meanwhile stays cancelled.
        """
        changes: JobChanges = {
            "status": ending.status,
            "phase": Phase.CLEANING_UP if ending.leaves_workspace else None,
            "completed_at": utc_now(),
            "outcome": ending.outcome,
            "failure_code": ending.failure_code,
            "error": ending.error,
            "clock": ending.clock,
            "resumes_at": None,
            "pid": None,
        }
        status = ending.status
        if not await self._store.update_job(ending.job_id, changes, Guard(LIVE)):
            details = await self._store.get_job_state(ending.job_id)
            if details is None:
                return status
            status = details.job.status
        await self._progress.notify(ending.job_id, _closing_words(status, ending), once="end")
        return status

    @activity.defn
    async def requeue_job(self, key: LeaseKey) -> None:
        """Record that a job has lost its machine, and waits for a slot at its old place."""
        changes: JobChanges = {"phase": Phase.WAITING_FOR_SLOT, "pid": None}
        if await self._store.update_job(key.job_id, changes, running_under(key)):
            text = "The machine that ran the job was lost. The job goes on as soon as it can."
            await self._progress.notify(key.job_id, text, once=("lost", key.number))

    @activity.defn
    async def wait_for_limit(self, wait: WaitForLimitInput) -> None:
        """Record that a job holds no slot until a limit ends. Repeatable."""
        changes: JobChanges = {
            "phase": Phase.WAITING_FOR_LIMIT,
            "resumes_at": wait.resumes_at,
            "pid": None,
        }
        if await self._store.update_job(wait.key.job_id, changes, running_under(wait.key)):
            text = f"{wait.reason} The job goes on at {wait.resumes_at:%Y-%m-%d %H:%M:%S} UTC."
            await self._progress.notify(wait.key.job_id, text, once=("limit", wait.key.number))

    @activity.defn
    async def end_limit_wait(self, key: LeaseKey) -> None:
        """Record that a job can go on, and waits for a slot at its old place. Repeatable."""
        changes: JobChanges = {"phase": Phase.WAITING_FOR_SLOT, "resumes_at": None}
        await self._store.update_job(key.job_id, changes, running_under(key))

    @activity.defn
    async def wait_for_user(self, job_id: str) -> None:
        """Record that Claude has answered and the user is asked. Repeatable."""
        changes: JobChanges = {"phase": Phase.WAITING_FOR_USER}
        await self._store.update_job(job_id, changes, Guard(frozenset({JobStatus.RUNNING})))

    @activity.defn
    async def accept_message(self, message: InboxMessage) -> bool:
        """Move a user's message into the transcript. Repeatable; False if there is no such one."""
        return await self._store.take_from_inbox(message.job_id, message.message_id)

    @activity.defn
    async def note_completion(self, job_id: str) -> None:
        """Add the system message that the user ended the conversation. Repeatable."""
        await self._progress.notify(job_id, "The user ended the conversation.", once="complete")

    @activity.defn
    async def host_task_queues(self, seen_within_seconds: float) -> list[str]:
        """Return the task queues of the machines seen within that time, one for each."""
        hosts = await self._store.live_hosts(utc_now() - timedelta(seconds=seen_within_seconds))
        newest: dict[str, str] = {}
        for host in hosts:
            newest.setdefault(host.id, host.task_queue)
        return list(newest.values())

    @activity.defn
    async def task_queue_of(self, host_id: str) -> str | None:
        """Return the task queue of the process that ran last on a machine, if that was lately."""
        hosts = await self._store.live_hosts(utc_now() - LATELY)
        return next((host.task_queue for host in hosts if host.id == host_id), None)

    @activity.defn
    async def forget_workspace(self, job_id: str) -> None:
        """Record that nothing is left to clean up. Repeatable."""
        await self._progress.cleaned_up(job_id)


def _closing_words(status: JobStatus, ending: FinishJobInput) -> str:
    match status:
        case JobStatus.COMPLETED if ending.outcome is Outcome.NO_CHANGES:
            return "Job completed: Claude made no changes, so there is no pull request."
        case JobStatus.FAILED if ending.error is not None:
            return f"Job failed: {ending.error}"
        case _:
            return f"Job {status.value}."
