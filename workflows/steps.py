"""The steps that code jobs and task jobs share, each an activity with its policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.claude import ClaudeActivities, RunClaudeInput, RunClaudeResult
    from activities.interceptors.errors import failure_from, took_too_long
    from activities.job_records import (
        RECORDS_TASK_QUEUE,
        FindHostQueueInput,
        FinishJobInput,
        ForgetWorkspaceInput,
        RecordActivities,
    )
    from activities.slots import SlotGrant
    from activities.workspaces import (
        CleanUpInput,
        PrepareInput,
        PrepareResult,
        WorkspaceActivities,
    )
    from domain.errors import JobEnded, JobFailure, timed_out
    from domain.failures import FailureCode, TimeLimit
    from domain.jobs import JobStatus, Outcome
    from workflows import policies
    from workflows.activity_calls import perform
    from workflows.backoff import TurnBackoff
    from workflows.slot import Slot
    from workflows.stopwatch import Stopwatch

JOBS_TASK_QUEUE = "jobs"
JOB_STATUS = SearchAttributeKey.for_keyword("JobStatus")
JOB_TYPE = SearchAttributeKey.for_keyword("JobType")
CLIENT_ID = SearchAttributeKey.for_keyword("ClientId")
REPOSITORY = SearchAttributeKey.for_keyword("Repository")


def workflow_id(job_id: str) -> str:
    """Return the id of a job's workflow, which no other row shares."""
    return f"job-{job_id}"


@dataclass(frozen=True, slots=True)
class JobResult:
    """The workflow's result, as the Web UI shows it."""

    status: JobStatus
    outcome: Outcome | None = None
    failure_code: FailureCode | None = None
    error: str | None = None


class JobSteps:
    """The steps of one job, bound to its slot.

    Args:
        job_id: the job.
        slot: the job's slot.
        job_limit: how long the job may hold a slot, over all its leases.
        turn_limit: how long Claude may work on one turn, over all attempts.
    """

    def __init__(
        self, job_id: str, slot: Slot, job_limit: timedelta, turn_limit: timedelta
    ) -> None:
        self._job_id = job_id
        self._slot = slot
        self._job_limit = job_limit
        self._turn_limit = turn_limit
        self.has_cleaned_up = False
        self._attempt = 0
        self.begin_turn()

    def begin_turn(self) -> None:
        """Reset the time limit, the attempts and the backoff for a new turn."""
        self._attempt = 0
        self._killed = 0
        self._turn_time = Stopwatch()
        self._backoff = TurnBackoff()

    async def prepare(self, grant: SlotGrant, *, for_claude: bool = True) -> PrepareResult:
        """Create the worktree on the granted host, or find the existing one.

        Raises:
            JobFailure: TIMED_OUT if the job's time is over, and Claude must still run.
        """
        show("Preparing the worktree", grant, status=JobStatus.RUNNING)
        policy = policies.PREPARE
        if for_claude:
            policy = policy.within(self._remaining(TimeLimit.JOB))
        try:
            return await perform(
                WorkspaceActivities.prepare,
                PrepareInput(self._slot.lease),
                grant.task_queue,
                policy,
            )
        except ActivityError as error:
            if took_too_long(error) and self._left_on(TimeLimit.JOB) <= timedelta():
                raise timed_out(TimeLimit.JOB) from error
            raise

    async def run_claude(
        self, grant: SlotGrant, turn: int, next_messages: Callable[[], list[str]] = list
    ) -> RunClaudeResult:
        """Run one turn. Run it again after a temporary failure.

        `next_messages` is called before each start of Claude and returns the ids of its messages.

        Raises:
            RetryLater: the turn resumes later, without a slot until then.
            JobFailure: TIMED_OUT if the turn's or the job's time is over.
        """
        while True:
            try:
                return await self._attempt_turn(grant, turn, next_messages())
            except ActivityError as error:
                if took_too_long(error):
                    raise timed_out(self._next_limit()) from error
                wait = self._wait_after(failure_from(error))
                if wait is None:
                    raise
            await asyncio.sleep(wait.total_seconds())

    async def _attempt_turn(
        self, grant: SlotGrant, turn: int, messages: list[str]
    ) -> RunClaudeResult:
        show(f"Claude is working (turn {turn})", grant)
        time_limit = self._next_limit()
        remaining = self._remaining(time_limit)
        self._attempt += 1
        self._turn_time.start()
        try:
            return await perform(
                ClaudeActivities.run_claude,
                RunClaudeInput(
                    self._slot.lease,
                    turn,
                    self._attempt,
                    messages,
                    limit_seconds=remaining.total_seconds(),
                    time_limit=time_limit,
                ),
                grant.task_queue,
                policies.run_claude(remaining),
                f"turn {turn}",
            )
        finally:
            self._turn_time.stop()

    def _next_limit(self) -> TimeLimit:
        """Return the time limit that runs out first."""
        return min((TimeLimit.JOB, TimeLimit.TURN), key=self._left_on)

    def _left_on(self, limit: TimeLimit) -> timedelta:
        if limit is TimeLimit.JOB:
            return self._job_limit - self._slot.held.elapsed
        return self._turn_limit - self._turn_time.elapsed

    def _remaining(self, limit: TimeLimit) -> timedelta:
        left = self._left_on(limit)
        if left <= timedelta():
            raise timed_out(limit)
        return left

    def _wait_after(self, failure: JobFailure | None) -> timedelta | None:
        """Return how long to wait before Claude runs again, or None if it must not.

        The job keeps its slot for that time.

        Raises:
            RetryLater: the wait is long, so the job must give its slot back.
        """
        if failure is None:
            return None
        if (retry := self._backoff.after(failure)) is not None:
            raise retry
        is_killed = failure.code is FailureCode.CLAUDE_FAILED and failure.transient
        if not is_killed or self._killed >= len(policies.KILLED_BACKOFF):
            return None
        self._killed += 1
        return policies.KILLED_BACKOFF[self._killed - 1]

    async def finish(self, ending: FinishJobInput) -> JobResult:
        """Write the final status, clean up on the host and release the slot."""
        finished = await perform(
            RecordActivities.finish_job,
            ending,
            RECORDS_TASK_QUEUE,
            policies.RECORD,
        )
        status = finished.status
        workflow.upsert_search_attributes([JOB_STATUS.value_set(status.value)])
        workflow.set_current_details(f"{status.value}: {ending.error or ending.outcome or ''}")
        if ending.needs_cleanup:
            # Claude may still be running if the job's time limit ended it.
            await self._slot.stop()
            await self._clean_up()
        await self._slot.release()
        return JobResult(status, ending.outcome, ending.failure_code, ending.error)

    async def _clean_up(self) -> None:
        """Salvage the work and remove the worktree. On a lost host, its sweeper does this later."""
        self.has_cleaned_up = (
            await self._slot.run_on_host(
                WorkspaceActivities.clean_up, CleanUpInput(self._job_id), policies.CLEAN_UP
            )
            or await self._clean_up_without_slot()
        )
        if not self.has_cleaned_up:
            await perform(
                RecordActivities.forget_workspace,
                ForgetWorkspaceInput(self._job_id),
                RECORDS_TASK_QUEUE,
                policies.RECORD,
            )

    async def _clean_up_without_slot(self) -> bool:
        """Clean up with the process that runs on the host now. Return whether it has done so."""
        for _ in range(policies.CLEAN_UP_LOOKUPS):
            task_queue = await self._current_task_queue()
            if task_queue is None:
                return False
            try:
                await perform(
                    WorkspaceActivities.clean_up,
                    CleanUpInput(self._job_id),
                    task_queue,
                    policies.CLEAN_UP,
                )
            except ActivityError as error:
                workflow.logger.warning("The worktree was not removed: %s", error.cause)
            else:
                return True
        return False

    async def _current_task_queue(self) -> str | None:
        """Return the task queue of the last host, or None if the host is gone."""
        grant = self._slot.last_grant
        if grant is None:
            return None
        host = await perform(
            RecordActivities.find_host_queue,
            FindHostQueueInput(grant.host_id),
            RECORDS_TASK_QUEUE,
            policies.RECORD,
        )
        return host.task_queue


def completed(job_id: str, outcome: Outcome) -> FinishJobInput:
    """Return the ending of a job that succeeded."""
    return FinishJobInput(job_id, JobStatus.COMPLETED, outcome=outcome, needs_cleanup=True)


def ended_early(job_id: str, error: BaseException, *, started: bool) -> FinishJobInput:
    """Return the ending of a job that `error` stopped.

    A cancellation arrives as `asyncio.CancelledError`, or as the failure of the activity that it
    interrupted. `started`: the job has held a slot.
    """
    if isinstance(error, JobEnded) or is_cancelled_exception(error):
        return FinishJobInput(job_id, JobStatus.CANCELLED, needs_cleanup=started)
    failure = failure_from(error) or JobFailure(FailureCode.HOST_LOST)
    return FinishJobInput(
        job_id,
        JobStatus.FAILED,
        failure_code=failure.code,
        error=failure.message,
        time_limit=failure.clock,
        needs_cleanup=started,
    )


def show(text: str, grant: SlotGrant, *, status: JobStatus | None = None) -> None:
    """Show the current step and its host in the Web UI."""
    workflow.set_current_details(f"{text} on {grant.host_id}, lease {grant.lease}")
    if status is not None:
        workflow.upsert_search_attributes([JOB_STATUS.value_set(status.value)])
