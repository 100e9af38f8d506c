"""A task job: a conversation, one run of Claude a turn, with no machine held in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.claude import ClaudeActivities, Delivery
    from activities.job_records import (
        RECORDS_TASK_QUEUE,
        FinishJobInput,
        InboxMessage,
        QueueEntry,
        RecordActivities,
    )
    from activities.slots import GRANT_SIGNAL, SlotGrant
    from activities.workspaces import WorkspaceActivities
    from domain.errors import timed_out
    from domain.failures import TimeLimit
    from domain.jobs import Outcome
    from workflows.activity_calls import perform, shield_until_done
    from workflows.policies import DELIVER, MESSAGES_PER_RUN, RECORD, STOP
    from workflows.slot import Slot
    from workflows.steps import JobResult, JobSteps, completed, ended_early
    from workflows.stopwatch import Stopwatch, seconds

NOT_ACCEPTING = "NotAccepting"

TASK_JOB = "TaskJob"


@dataclass(frozen=True, slots=True)
class TaskJobState:
    """What a conversation carries into its next run (Temporal's continue-as-new)."""

    turn: int = 0
    lease: int = 0
    grant: SlotGrant | None = None
    pending: list[str] = field(default_factory=list)
    held_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskJobInput:
    """Limits bound a turn, the wait for the user, the time on machines, each wait for a slot.

    With `queue_limit_seconds` None the job waits for a slot as long as it takes.
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
            job.state.lease,
            job.state.grant,
            held=Stopwatch(job.state.held_seconds),
            queue_limit=seconds(job.queue_limit_seconds),
        )
        job_limit = timedelta(seconds=job.time_limit_seconds)
        turn_limit = timedelta(seconds=job.turn_limit_seconds)
        self._steps = JobSteps(job.job_id, self._slot, job_limit, turn_limit)
        self._turn = job.state.turn
        self._pending = list(job.state.pending)
        self._known = set(self._pending)
        self._first: list[str] = []
        self._given: set[str] = set()
        self._accepted = 0
        self._completing = False
        self._ended = False
        self._in_order = asyncio.Lock()

    @workflow.signal(name=GRANT_SIGNAL)
    def slot_granted(self, grant: SlotGrant) -> None:
        """Learn which machine holds the slot."""
        self._slot.granted(grant)

    @workflow.update
    async def send_message(self, message_id: str) -> None:
        """Accept a message that lies in the inbox; it reaches Claude once, now or next turn."""
        async with self._in_order:
            if message_id in self._known:
                return
            await perform(
                RecordActivities.accept_message,
                InboxMessage(self._job.job_id, message_id),
                RECORDS_TASK_QUEUE,
                RECORD,
            )
            self._known.add(message_id)
            self._pending.append(message_id)
            self._accepted += 1
            await self._deliver()

    @send_message.validator
    def validate_message(self, message_id: str) -> None:
        """Refuse messages to a conversation that has ended or is ending."""
        if self._ended or self._completing:
            raise ApplicationError(
                "Job is not accepting messages: the conversation was completed.",
                type=NOT_ACCEPTING,
            )

    @workflow.update
    async def complete(self) -> None:
        """End the conversation: at once when it waits for the user, else after the turn."""
        async with self._in_order:
            self._completing = True
        await perform(
            RecordActivities.note_completion,
            self._job.job_id,
            RECORDS_TASK_QUEUE,
            RECORD,
        )

    @complete.validator
    def validate_complete(self) -> None:
        """Refuse when the conversation has ended."""
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
        async with self._in_order:
            self._ended = not self._pending
            return self._ended

    async def _take_turn(self) -> None:
        if self._turn > 0:
            await perform(
                RecordActivities.enqueue_job,
                QueueEntry(self._job.job_id, self._turn + 1),
                RECORDS_TASK_QUEUE,
                RECORD,
            )
        self._turn += 1
        self._steps.begin_turn()
        consumed = await self._slot.work(self._run_turn)
        self._pending = [message for message in self._pending if message not in consumed]
        await self._slot.release()

    async def _run_turn(self, grant: SlotGrant) -> list[str]:
        await self._steps.prepare(grant)
        output = await self._steps.run_claude(grant, self._turn, self._give_all)
        await perform(
            WorkspaceActivities.verify_unchanged,
            self._slot.key,
            grant.task_queue,
            STOP,
        )
        # A turn that reports none of the messages it was given has answered all of them. So each
        # turn leaves fewer messages to be answered.
        if set(output.consumed) & set(self._first):
            return output.consumed
        return [*self._first, *output.consumed]

    def _give_all(self) -> list[str]:
        """Return what a process that starts is given at once: all that is not answered yet."""
        self._first = list(self._pending)
        self._given = set(self._first)
        return self._first

    async def _deliver(self) -> None:
        """Hand the running turn what it does not have, in order; the rest waits for the next."""
        for message_id in [each for each in self._pending if each not in self._given]:
            grant = self._slot.grant
            if grant is None or not await self._hand_over(grant, message_id):
                return
            self._given.add(message_id)

    async def _hand_over(self, grant: SlotGrant, message_id: str) -> bool:
        try:
            return await perform(
                ClaudeActivities.deliver_message,
                Delivery(self._slot.key, message_id),
                grant.task_queue,
                DELIVER,
            )
        except ActivityError as error:
            workflow.logger.info("The message waits for the next turn: %s", error.cause)
            return False

    async def _wait_for_user(self) -> None:
        await perform(
            RecordActivities.wait_for_user,
            self._job.job_id,
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
            # A message that is just being accepted came in time.
            await workflow.wait_condition(workflow.all_handlers_finished)
            if not self._pending and not self._completing:
                raise timed_out(TimeLimit.IDLE) from None

    def _is_long(self) -> bool:
        is_full = workflow.info().is_continue_as_new_suggested()
        return is_full or self._accepted >= MESSAGES_PER_RUN

    async def _continue_as_new(self) -> None:
        """Go on as a new run, unless the conversation is completed meanwhile."""
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._completing:
            return
        state = TaskJobState(
            self._turn,
            self._slot.lease,
            self._slot.last_grant,
            list(self._pending),
            self._slot.held.elapsed.total_seconds(),
        )
        workflow.continue_as_new(replace(self._job, state=state))
