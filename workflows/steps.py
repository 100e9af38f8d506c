"""The steps that both kinds of job are made of, each an activity with its policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.claude import ClaudeActivities, TurnInput, TurnOutput
    from activities.interceptors.errors import failure_from, took_too_long
    from activities.job_records import RECORDS_TASK_QUEUE, FinishJobInput, RecordActivities
    from activities.slots import SlotGrant
    from activities.workspaces import PrepareResult, WorkspaceActivities
    from domain.errors import JobEnded, JobFailure, timed_out
    from domain.failures import FailureCode, TimeLimit
    from domain.jobs import JobStatus, Outcome
    from workflows import policies
    from workflows.activity_calls import perform
    from workflows.backoff import Standstills
    from workflows.slot import Slot
    from workflows.stopwatch import Stopwatch

JOBS_TASK_QUEUE = "jobs"
JOB_STATUS = SearchAttributeKey.for_keyword("JobStatus")
JOB_TYPE = SearchAttributeKey.for_keyword("JobType")
CLIENT_ID = SearchAttributeKey.for_keyword("ClientId")
REPOSITORY = SearchAttributeKey.for_keyword("Repository")


def workflow_id(job_id: str) -> str:
    """Return the id of a job's workflow."""
    return f"job-{job_id}"


@dataclass(frozen=True, slots=True)
class JobResult:
    """What the Web UI shows as the workflow's result."""

    status: JobStatus
    outcome: Outcome | None = None
    failure_code: FailureCode | None = None
    error: str | None = None


class JobSteps:
    """The steps of one job, bound to its slot.

    Args:
        job_id: the job.
        slot: its hold on a machine.
        job_limit: how long it may hold one, over all its leases.
        turn_limit: how long Claude may work on one turn, over all its attempts.
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
        """Let a new turn have all of its time, and all the patience of one."""
        self._attempt = 0
        self._killed = 0
        self._worked = Stopwatch()
        self._standstills = Standstills()

    async def prepare(self, grant: SlotGrant, *, for_claude: bool = True) -> PrepareResult:
        """Make the worktree on the granted machine, or find it there.

        Raises:
            JobFailure: `timed_out` when the job's time is over, and Claude is still to work.
        """
        show("Preparing the worktree", grant, status=JobStatus.RUNNING)
        policy = policies.PREPARE
        if for_claude:
            policy = policy.within(self._remaining(TimeLimit.JOB))
        try:
            return await perform(
                WorkspaceActivities.prepare, self._slot.key, grant.task_queue, policy
            )
        except ActivityError as error:
            if took_too_long(error) and self._left_on(TimeLimit.JOB) <= timedelta():
                raise timed_out(TimeLimit.JOB) from error
            raise

    async def run_claude(
        self, grant: SlotGrant, turn: int, messages: Callable[[], list[str]] = list
    ) -> TurnOutput:
        """Run one turn, and again after a failure that passes.

        `messages` is asked before each start of Claude for what it is to be given.

        Raises:
            Standstill: the turn goes on later.
            JobFailure: `timed_out` when the turn's or the job's time is over.
        """
        while True:
            try:
                return await self._attempt_turn(grant, turn, messages())
            except ActivityError as error:
                if took_too_long(error):
                    raise timed_out(self._next_clock()) from error
                pause = self._pause_after(failure_from(error))
                if pause is None:
                    raise
            await asyncio.sleep(pause.total_seconds())

    async def _attempt_turn(self, grant: SlotGrant, turn: int, messages: list[str]) -> TurnOutput:
        show(f"Claude is working (turn {turn})", grant)
        clock = self._next_clock()
        remaining = self._remaining(clock)
        self._attempt += 1
        self._worked.start()
        try:
            return await perform(
                ClaudeActivities.run_claude,
                TurnInput(
                    self._slot.key,
                    turn,
                    self._attempt,
                    messages,
                    limit_seconds=remaining.total_seconds(),
                    limit_clock=clock,
                ),
                grant.task_queue,
                policies.run_claude(remaining),
                f"turn {turn}",
            )
        finally:
            self._worked.stop()

    def _next_clock(self) -> TimeLimit:
        """Return which of the two clocks runs out first."""
        return min((TimeLimit.JOB, TimeLimit.TURN), key=self._left_on)

    def _left_on(self, clock: TimeLimit) -> timedelta:
        if clock is TimeLimit.JOB:
            return self._job_limit - self._slot.held.elapsed
        return self._turn_limit - self._worked.elapsed

    def _remaining(self, clock: TimeLimit) -> timedelta:
        left = self._left_on(clock)
        if left <= timedelta():
            raise timed_out(clock)
        return left

    def _pause_after(self, failure: JobFailure | None) -> timedelta | None:
        """Return the wait, on the machine, that a failure of Claude's is worth; None for none.

        Raises:
            Standstill: it is worth a longer one, without the machine.
        """
        if failure is None:
            return None
        if (standstill := self._standstills.after(failure)) is not None:
            raise standstill
        is_killed = failure.code is FailureCode.CLAUDE_FAILED and failure.transient
        if not is_killed or self._killed >= len(policies.KILLED_PAUSES):
            return None
        self._killed += 1
        return policies.KILLED_PAUSES[self._killed - 1]

    async def finish(self, ending: FinishJobInput) -> JobResult:
        """Write the final status, clean up on the machine, and give the slot back."""
        status = await perform(
            RecordActivities.finish_job,
            ending,
            RECORDS_TASK_QUEUE,
            policies.RECORD,
        )
        workflow.upsert_search_attributes([JOB_STATUS.value_set(status.value)])
        workflow.set_current_details(f"{status.value}: {ending.error or ending.outcome or ''}")
        if ending.leaves_workspace:
            # Claude may still run when it was the job's time that was up.
            await self._slot.stop()
            await self._clean_up()
        await self._slot.release()
        return JobResult(status, ending.outcome, ending.failure_code, ending.error)

    async def _clean_up(self) -> None:
        """Keep the work and remove the worktree; when the machine is lost, its sweep does it."""
        asked = await self._slot.ask(WorkspaceActivities.clean_up, self._job_id, policies.CLEAN_UP)
        self.has_cleaned_up = asked or await self._clean_up_without_slot()
        if not self.has_cleaned_up:
            await perform(
                RecordActivities.forget_workspace,
                self._job_id,
                RECORDS_TASK_QUEUE,
                policies.RECORD,
            )

    async def _clean_up_without_slot(self) -> bool:
        """Let the process do it that runs on the machine by now; returns whether it has."""
        for _ in range(policies.CLEAN_UP_TRIES):
            task_queue = await self._task_queue_now()
            if task_queue is None:
                return False
            try:
                await perform(
                    WorkspaceActivities.clean_up, self._job_id, task_queue, policies.CLEAN_UP
                )
            except ActivityError as error:
                workflow.logger.warning("The worktree is still there: %s", error.cause)
            else:
                return True
        return False

    async def _task_queue_now(self) -> str | None:
        """Return what leads to the machine that was held last; None when it is gone."""
        grant = self._slot.last_grant
        if grant is None:
            return None
        return await perform(
            RecordActivities.task_queue_of, grant.host_id, RECORDS_TASK_QUEUE, policies.RECORD
        )


def completed(job_id: str, outcome: Outcome) -> FinishJobInput:
    """Return the ending of a job that did what it was asked."""
    return FinishJobInput(job_id, JobStatus.COMPLETED, outcome=outcome, leaves_workspace=True)


def ended_early(job_id: str, error: BaseException, *, started: bool) -> FinishJobInput:
    """Return the ending of a job that `error` kept from completing.

    A cancellation comes as `asyncio.CancelledError`, or as the failure of the activity that it
    interrupted. `started` tells whether the job had a machine.
    """
    if isinstance(error, JobEnded) or is_cancelled_exception(error):
        return FinishJobInput(job_id, JobStatus.CANCELLED, leaves_workspace=started)
    failure = failure_from(error) or JobFailure(FailureCode.HOST_LOST)
    return FinishJobInput(
        job_id,
        JobStatus.FAILED,
        failure_code=failure.code,
        error=failure.message,
        clock=failure.clock,
        leaves_workspace=started,
    )


def show(text: str, grant: SlotGrant, *, status: JobStatus | None = None) -> None:
    """Show in the Web UI what the job is doing, and on which machine."""
    workflow.set_current_details(f"{text} on {grant.host_id}, lease {grant.lease}")
    if status is not None:
        workflow.upsert_search_attributes([JOB_STATUS.value_set(status.value)])
