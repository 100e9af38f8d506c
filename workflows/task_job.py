"""A task job: a conversation with one Claude process per turn, and no slot between turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.claude import ClaudeActivities, DeliverMessageInput
    from activities.job_records import (
        RECORDS_TASK_QUEUE,
        AcceptMessageInput,
        EnqueueTurnInput,
        FinishJobInput,
        RecordActivities,
        RecordCompletionInput,
        WaitForUserInput,
    )
    from activities.slots import GRANT_SIGNAL, SlotGrant
    from activities.workspaces import VerifyUnchangedInput, WorkspaceActivities
    from domain.errors import timed_out
    from domain.failures import TimeLimit
    from domain.jobs import Outcome
    from workflows.activity_calls import perform, shield_until_done
    from workflows.policies import DELIVER_MESSAGE, MESSAGES_PER_RUN, RECORD, VERIFY_UNCHANGED
    from workflows.slot import Slot
    from workflows.steps import JobResult, JobSteps, completed, ended_early
    from workflows.stopwatch import Stopwatch, seconds

NOT_ACCEPTING = "NotAccepting"

TASK_JOB = "TaskJob"


@dataclass(frozen=True, slots=True)
class TaskJobState:
    """The state that the next run of the conversation needs (Temporal's continue-as-new)."""

    turn: int = 0
    lease_number: int = 0
    grant: SlotGrant | None = None
    pending: list[str] = field(default_factory=list)
    held_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskJobInput:
    """A task job and its limits.

    Args:
        job_id: the job.
        turn_limit_seconds: the time that Claude may work on one turn.
        idle_limit_seconds: each wait for the user.
        time_limit_seconds: the time that the job may hold a host, over all leases.
        queue_limit_seconds: each wait for a slot; None is no limit.
        state: from the run before.
    """

    job_id: str
    turn_limit_seconds: float
    idle_limit_seconds: float
    time_limit_seconds: float
    queue_limit_seconds: float | None
    state: TaskJobState = field(default_factory=TaskJobState)


@workflow.defn(name=TASK_JOB)
class TaskJobWorkflow:
    """Runs one conversation until it is completed, cancelled or fails."""

    @workflow.init
    def __init__(self, job: TaskJobInput) -> None:
        self._job = job
        self._slot = Slot(
            job.job_id,
            job.state.lease_number,
            job.state.grant,
            held=Stopwatch(job.state.held_seconds),
            queue_limit=seconds(job.queue_limit_seconds),
        )
        job_limit = timedelta(seconds=job.time_limit_seconds)
        turn_limit = timedelta(seconds=job.turn_limit_seconds)
        self._steps = JobSteps(job.job_id, self._slot, job_limit, turn_limit)
        self._turn = job.state.turn
        self._pending = list(job.state.pending)
        self._accepted_ids = set(self._pending)
        self._initial_ids: list[str] = []
        self._delivered_ids: set[str] = set()
        self._accepted_in_run = 0
        self._completing = False
        self._ended = False
        self._update_lock = asyncio.Lock()

    @workflow.signal(name=GRANT_SIGNAL)
    def slot_granted(self, grant: SlotGrant) -> None:
        """Accept the slot that a host has granted."""
        self._slot.accept(grant)

    @workflow.update
    async def send_message(self, message_id: str) -> None:
        """Accept a message from the message queue. Idempotent.

        It reaches Claude once, in the running turn or in the next.
        """
        async with self._update_lock:
            if message_id in self._accepted_ids:
                return
            await perform(
                RecordActivities.accept_message,
                AcceptMessageInput(self._job.job_id, message_id),
                RECORDS_TASK_QUEUE,
                RECORD,
            )
            self._accepted_ids.add(message_id)
            self._pending.append(message_id)
            self._accepted_in_run += 1
            await self._deliver()

    @send_message.validator
    def validate_message(self, message_id: str) -> None:
        """Reject messages to a conversation that has ended or is ending."""
        if self._ended or self._completing:
            raise ApplicationError(
                "Job is not accepting messages: the conversation was completed.",
                type=NOT_ACCEPTING,
            )

    @workflow.update
    async def complete(self) -> None:
        """End the conversation: at once if it waits for the user, otherwise after the turn."""
        async with self._update_lock:
            self._completing = True
        await perform(
            RecordActivities.record_completion,
            RecordCompletionInput(self._job.job_id),
            RECORDS_TASK_QUEUE,
            RECORD,
        )

    @complete.validator
    def validate_complete(self) -> None:
        """Reject the completion of a conversation that has ended."""
        if self._ended:
            raise ApplicationError(
                "Job is not interactive or already finished.", type=NOT_ACCEPTING
            )

    @workflow.run
    async def run(self, job: TaskJobInput) -> JobResult:
        """Return how the job ended."""
        try:
            await self._converse()
            ending = completed(job.job_id, Outcome.ANSWERED)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            # A job always ends with a status and a reason.
            started = self._slot.last_grant is not None
            ending = ended_early(job.job_id, error, started=started)
        self._ended = True
        return await shield_until_done(self._end(ending))

    async def _end(self, ending: FinishJobInput) -> JobResult:
        result = await self._steps.finish(ending)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _converse(self) -> None:
        while True:
            if self._is_long() and not self._completing:
                await self._continue_as_new()
            elif self._turn == 0 or self._pending:
                await self._take_turn()
            elif self._completing:
                if await self._is_over():
                    return
            else:
                await self._wait_for_user()

    async def _is_over(self) -> bool:
        """Close the conversation, unless a message was accepted before it was completed."""
        async with self._update_lock:
            self._ended = not self._pending
            return self._ended

    async def _take_turn(self) -> None:
        if self._turn > 0:
            await perform(
                RecordActivities.enqueue_turn,
                EnqueueTurnInput(self._job.job_id),
                RECORDS_TASK_QUEUE,
                RECORD,
                f"turn {self._turn + 1}",
            )
        self._turn += 1
        self._steps.begin_turn()
        answered = await self._slot.work(self._run_turn)
        self._pending = [message for message in self._pending if message not in answered]
        await self._slot.release()

    async def _run_turn(self, grant: SlotGrant) -> list[str]:
        await self._steps.prepare(grant)
        result = await self._steps.run_claude(grant, self._turn, self._initial_messages)
        await perform(
            WorkspaceActivities.verify_unchanged,
            VerifyUnchangedInput(self._slot.lease),
            grant.task_queue,
            VERIFY_UNCHANGED,
        )
        # If the turn reports none of its initial messages as answered, treat all of them as
        # answered. Otherwise the same messages could start one turn after the other without end.
        if set(result.answered) & set(self._initial_ids):
            return result.answered
        return [*self._initial_ids, *result.answered]

    def _initial_messages(self) -> list[str]:
        """Return the messages for a process that starts: all that are not answered yet."""
        self._initial_ids = list(self._pending)
        self._delivered_ids = set(self._initial_ids)
        return self._initial_ids

    async def _deliver(self) -> None:
        """Deliver new messages to the running turn, in order. The rest waits for the next turn."""
        for message_id in [new for new in self._pending if new not in self._delivered_ids]:
            grant = self._slot.grant
            if grant is None or not await self._deliver_one(grant, message_id):
                return
            self._delivered_ids.add(message_id)

    async def _deliver_one(self, grant: SlotGrant, message_id: str) -> bool:
        try:
            result = await perform(
                ClaudeActivities.deliver_message,
                DeliverMessageInput(self._slot.lease, message_id),
                grant.task_queue,
                DELIVER_MESSAGE,
            )
        except ActivityError as error:
            workflow.logger.info("The message waits for the next turn: %s", error.cause)
            return False
        return result.delivered

    async def _wait_for_user(self) -> None:
        await perform(
            RecordActivities.wait_for_user,
            WaitForUserInput(self._job.job_id),
            RECORDS_TASK_QUEUE,
            RECORD,
        )
        workflow.set_current_details(f"Waiting for the user after turn {self._turn}")
        try:
            await workflow.wait_condition(
                lambda: bool(self._pending) or self._completing or self._is_long(),
                timeout=timedelta(seconds=self._job.idle_limit_seconds),
                timeout_summary="idle limit",
            )
        except TimeoutError:
            # A message whose update is still running arrived before the limit.
            await workflow.wait_condition(workflow.all_handlers_finished)
            if not self._pending and not self._completing:
                raise timed_out(TimeLimit.IDLE) from None

    def _is_long(self) -> bool:
        is_full = workflow.info().is_continue_as_new_suggested()
        return is_full or self._accepted_in_run >= MESSAGES_PER_RUN

    async def _continue_as_new(self) -> None:
        """Continue as a new run, unless an update that is still running completes the job."""
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._completing:
            return
        state = TaskJobState(
            self._turn,
            self._slot.lease_number,
            self._slot.last_grant,
            list(self._pending),
            self._slot.held.elapsed.total_seconds(),
        )
        workflow.continue_as_new(replace(self._job, state=state))
