"""Store reads and writes that belong to no host.

They run on the `records` task queue of any worker.
"""

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

HOST_SEEN_WITHIN = timedelta(minutes=2)
"""Longer than a host counts as live: after an outage of the store no host has reported yet."""


@dataclass(frozen=True, slots=True)
class FinishJobInput:
    """How a job ends.

    `time_limit` is set if one ran out. `needs_cleanup`: a host still has the job's worktree.
    """

    job_id: str
    status: JobStatus
    outcome: Outcome | None = None
    failure_code: FailureCode | None = None
    error: str | None = None
    time_limit: TimeLimit | None = None
    needs_cleanup: bool = False


@dataclass(frozen=True, slots=True)
class FinishJobResult:
    """The status that the job has now."""

    status: JobStatus


@dataclass(frozen=True, slots=True)
class EnqueueTurnInput:
    """A conversation whose next turn needs a slot."""

    job_id: str


@dataclass(frozen=True, slots=True)
class RequeueInput:
    """The lease of a job that has lost its host."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class WaitForLimitInput:
    """A job that cannot run before `resumes_at`; `reason` is a sentence for its user."""

    lease: LeaseKey
    resumes_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class EndLimitWaitInput:
    """The lease of a job whose usage limit has ended."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class WaitForUserInput:
    """A conversation whose last message was answered."""

    job_id: str


@dataclass(frozen=True, slots=True)
class AcceptMessageInput:
    """A user's message in the job's message queue."""

    job_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class RecordCompletionInput:
    """A conversation that its user has completed."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ListHostQueuesInput:
    """How recently a host must have reported."""

    seen_within_seconds: float


@dataclass(frozen=True, slots=True)
class ListHostQueuesResult:
    """One task queue for each host."""

    task_queues: list[str]


@dataclass(frozen=True, slots=True)
class FindHostQueueInput:
    """A host by its id."""

    host_id: str


@dataclass(frozen=True, slots=True)
class FindHostQueueResult:
    """`task_queue` is None if the host has not reported recently."""

    task_queue: str | None


@dataclass(frozen=True, slots=True)
class ForgetWorkspaceInput:
    """An ended job whose host is gone."""

    job_id: str


class RecordActivities:
    """Writes the decisions of workflows to the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress(store)

    @activity.defn
    async def enqueue_turn(self, request: EnqueueTurnInput) -> None:
        """Put a job that waits for a slot at the end of the queue. Idempotent."""
        changes: JobChanges = {"phase": Phase.WAITING_FOR_SLOT, "queued_at": utc_now()}
        await self._store.update_job(request.job_id, changes, Guard(LIVE))

    @activity.defn
    async def finish_job(self, request: FinishJobInput) -> FinishJobResult:
        """Write the final status, unless the job already has one. Idempotent.

        The result is the status in the store: a job that was cancelled first stays cancelled.
        """
        changes: JobChanges = {
            "status": request.status,
            "phase": Phase.CLEANING_UP if request.needs_cleanup else None,
            "completed_at": utc_now(),
            "outcome": request.outcome,
            "failure_code": request.failure_code,
            "error": request.error,
            "clock": request.time_limit,
            "resumes_at": None,
            "pid": None,
        }
        status = request.status
        if not await self._store.update_job(request.job_id, changes, Guard(LIVE)):
            details = await self._store.get_job_state(request.job_id)
            if details is None:
                return FinishJobResult(status)
            status = details.job.status
        await self._progress.notify(request.job_id, _closing_message(status, request), once="end")
        return FinishJobResult(status)

    @activity.defn
    async def requeue(self, request: RequeueInput) -> None:
        """Record that a job has lost its host and waits at its old place in the queue.

        Idempotent.
        """
        lease = request.lease
        changes: JobChanges = {"phase": Phase.WAITING_FOR_SLOT, "pid": None}
        if await self._store.update_job(lease.job_id, changes, running_under(lease)):
            text = "The host that ran the job was lost. The job resumes as soon as a slot is free."
            await self._progress.notify(lease.job_id, text, once=("lost", lease.number))

    @activity.defn
    async def wait_for_limit(self, request: WaitForLimitInput) -> None:
        """Record that a job holds no slot until a limit ends. Idempotent."""
        lease, resumes_at = request.lease, request.resumes_at
        changes: JobChanges = {
            "phase": Phase.WAITING_FOR_LIMIT,
            "resumes_at": resumes_at,
            "pid": None,
        }
        if await self._store.update_job(lease.job_id, changes, running_under(lease)):
            text = f"{request.reason} The job resumes at {resumes_at:%Y-%m-%d %H:%M:%S} UTC."
            await self._progress.notify(lease.job_id, text, once=("limit", lease.number))

    @activity.defn
    async def end_limit_wait(self, request: EndLimitWaitInput) -> None:
        """Record that a job can resume and waits at its old place in the queue. Idempotent."""
        lease = request.lease
        changes: JobChanges = {"phase": Phase.WAITING_FOR_SLOT, "resumes_at": None}
        await self._store.update_job(lease.job_id, changes, running_under(lease))

    @activity.defn
    async def wait_for_user(self, request: WaitForUserInput) -> None:
        """Record that Claude has answered and the job waits for its user. Idempotent."""
        changes: JobChanges = {"phase": Phase.WAITING_FOR_USER}
        running = Guard(frozenset({JobStatus.RUNNING}))
        await self._store.update_job(request.job_id, changes, running)

    @activity.defn
    async def accept_message(self, request: AcceptMessageInput) -> None:
        """Move a user's message from the queue into the message log. Idempotent."""
        await self._store.take_from_inbox(request.job_id, request.message_id)

    @activity.defn
    async def record_completion(self, request: RecordCompletionInput) -> None:
        """Add the system message that the user ended the conversation. Idempotent."""
        text = "The user ended the conversation."
        await self._progress.notify(request.job_id, text, once="complete")

    @activity.defn
    async def list_host_queues(self, request: ListHostQueuesInput) -> ListHostQueuesResult:
        """Return the task queue of the newest process of every live host."""
        since = utc_now() - timedelta(seconds=request.seen_within_seconds)
        newest: dict[str, str] = {}
        for host in await self._store.live_hosts(since):
            newest.setdefault(host.id, host.task_queue)
        return ListHostQueuesResult(list(newest.values()))

    @activity.defn
    async def find_host_queue(self, request: FindHostQueueInput) -> FindHostQueueResult:
        """Return the task queue of the newest process of a host, if it reported recently."""
        hosts = await self._store.live_hosts(utc_now() - HOST_SEEN_WITHIN)
        queues = (host.task_queue for host in hosts if host.id == request.host_id)
        return FindHostQueueResult(next(queues, None))

    @activity.defn
    async def forget_workspace(self, request: ForgetWorkspaceInput) -> None:
        """Record that there is nothing left to clean up. Idempotent."""
        await self._progress.cleaned_up(request.job_id)


def _closing_message(status: JobStatus, request: FinishJobInput) -> str:
    match status:
        case JobStatus.COMPLETED if request.outcome is Outcome.NO_CHANGES:
            return "Job completed: Claude made no changes, so there is no pull request."
        case JobStatus.FAILED if request.error is not None:
            return f"Job failed: {request.error}"
        case _:
            return f"Job {status.value}."
