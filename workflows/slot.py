"""A job's hold on a machine, as its workflow sees it.

The slot is an activity that lives as long as the job needs the machine (Temporal's session
pattern). When the machine is lost the activity fails by its missing heartbeats, and the work is
taken up again under the next lease: on the same machine if a process is there again, else on
whichever machine grants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.interceptors.errors import (
        failure_from,
        found_nobody,
        job_ended,
        present_lease,
        was_given_up,
    )
    from activities.job_records import RECORDS_TASK_QUEUE, RecordActivities, WaitForLimitInput
    from activities.slots import (
        SLOTS_TASK_QUEUE,
        SlotActivities,
        SlotGrant,
        SlotRequest,
        slots_task_queue_of,
    )
    from domain.errors import JobFailure, timed_out
    from domain.failures import FailureCode, TimeLimit
    from domain.jobs import MIN_PRIORITY
    from host.slots.leases import LeaseKey
    from workflows import policies
    from workflows.activity_calls import Activities, Activity, Request, perform, start
    from workflows.backoff import RetryLater
    from workflows.policies import Policy
    from workflows.stopwatch import Stopwatch

T = TypeVar("T")
Work = Callable[[SlotGrant], Awaitable[T]]


class Slot:
    """Takes leases one after the other for one job.

    Args:
        job_id: the job.
        lease: the number of its newest lease.
        last_grant: what it held last.
        held: measures the time that it holds a machine.
        queue_limit: how long it may wait for each grant; None for as long as it takes.
        preferred_host: the machine that has its work already.
        needs_claude: whether the job still needs Claude. If not, or on the host
            `host_claude_finished_on`, a usage limit does not stop it from getting a slot. The
            job's workflow keeps both up to date.
    """

    def __init__(
        self,
        job_id: str,
        lease: int = 0,
        last_grant: SlotGrant | None = None,
        *,
        held: Stopwatch | None = None,
        queue_limit: timedelta | None = None,
        preferred_host: str | None = None,
        needs_claude: bool = True,
    ) -> None:
        self.held = held or Stopwatch()
        self.needs_claude = needs_claude
        self.host_claude_finished_on: str | None = None
        self._job_id = job_id
        self._lease = lease
        self._queue_limit = queue_limit
        self._preferred_host = preferred_host
        self._grant: SlotGrant | None = None
        self._last_grant = last_grant
        self._holder: workflow.ActivityHandle[None] | None = None
        self._stopping = False

    @property
    def lease(self) -> int:
        """The number of the newest lease."""
        return self._lease

    @property
    def key(self) -> LeaseKey:
        """The newest lease."""
        return LeaseKey(self._job_id, self._lease)

    @property
    def grant(self) -> SlotGrant | None:
        """The machine held now."""
        return self._grant

    @property
    def last_grant(self) -> SlotGrant | None:
        """The machine held last, where the worktree is."""
        return self._last_grant

    def go_on(self) -> None:
        """Return if the job may take its next step.

        Raises:
            asyncio.CancelledError: the job is being cancelled; a step that had to be finished has
                just been.
        """
        if self._stopping:
            raise asyncio.CancelledError

    def granted(self, grant: SlotGrant) -> None:
        """Take note of a grant; one for an older lease is too late and ignored."""
        if grant.lease == self._lease:
            self._grant = self._last_grant = grant

    async def work(self, work: Work[T]) -> T:
        """Do `work` on a machine; when the machine is lost, do it again on the next.

        `work` is called anew for each lease and must go on from what it finds. When it raises
        `RetryLater`, the slot is given back until that is over. However this ends, the slot is
        **still held** then, so that the caller can clean up on the machine before `release`.

        Raises:
            JobFailure: `host_lost` after too many losses in a row, `timed_out` in the queue.
            Exception: whatever else `work` raised.
            JobEnded: the store has a final status for the job.
            asyncio.CancelledError: the workflow was cancelled; what ran on the machine is stopped.
        """
        losses = 0
        while losses < policies.MAX_LOSSES:
            grant = await self._acquire()
            held_before = self.held.elapsed
            running = asyncio.ensure_future(work(grant))
            try:
                return await self._race(running)
            except asyncio.CancelledError:
                self._stopping = True
                await self.stop()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                raise
            except RetryLater as standstill:
                await self._wait_out(standstill)
            except ActivityError as error:
                if failure_from(error) is not None:
                    raise
                is_settled = self.held.elapsed - held_before > policies.SETTLED_AFTER
                losses = 1 if is_settled else losses + 1
                await self._requeue_after_host_loss(error)
        raise JobFailure(FailureCode.HOST_LOST)

    async def stop(self) -> None:
        """Stop what runs on the machine and wait until it is gone. The slot stays held."""
        await self.ask(SlotActivities.stop_work, self.key, policies.STOP)

    async def release(self) -> None:
        """Give the slot back; nothing happens when none is held."""
        await self.ask(SlotActivities.release_slot, self.key, policies.STOP)
        await self._abandon()

    async def ask(
        self, activity: Activity[Activities, Request, None], request: Request, policy: Policy
    ) -> bool:
        """Have the machine do something; returns whether it has done it.

        It has not when no slot is held, or when the machine is lost before it answers.
        """
        if self._grant is None or self._is_lost:
            return False
        asked = start(activity, request, self._grant.task_queue, policy)
        await workflow.wait_condition(lambda: asked.done() or self._is_lost)
        if not asked.done():
            asked.cancel()
        try:
            await asked
        except ActivityError as error:
            workflow.logger.warning("The machine did not answer: %s", error.cause)
            return False
        return True

    @property
    def _is_lost(self) -> bool:
        """Whether the holder has failed: the machine is gone, or has given the job up."""
        holder = self._holder
        return holder is not None and holder.done() and holder.exception() is not None

    async def _requeue_after_host_loss(self, error: ActivityError) -> None:
        """Record that the job waits for a slot again; its place in the queue is the old one."""
        if was_given_up(error) and self._grant is not None:
            self._preferred_host = self._grant.host_id
        await self._abandon()
        await perform(RecordActivities.requeue_job, self.key, RECORDS_TASK_QUEUE, policies.RECORD)

    async def _wait_out(self, standstill: RetryLater) -> None:
        """Give the slot back, wait, and take the old place in the queue again."""
        if self._grant is not None:
            self._preferred_host = self._grant.host_id
        wait = WaitForLimitInput(self.key, standstill.until, standstill.reason)
        await perform(RecordActivities.wait_for_limit, wait, RECORDS_TASK_QUEUE, policies.RECORD)
        await self.release()
        workflow.set_current_details(f"{standstill.reason} Goes on at {standstill.until:%F %T} UTC")
        remaining = max(standstill.until - workflow.now(), timedelta())
        await workflow.sleep(remaining, summary="limit")
        await perform(
            RecordActivities.end_limit_wait, self.key, RECORDS_TASK_QUEUE, policies.RECORD
        )

    async def _acquire(self) -> SlotGrant:
        queued_at = workflow.now()
        pauses = policies.requeue_pauses()
        while True:
            self._lease += 1
            self._grant = None
            asked_at = workflow.now()
            holder = self._holder = self._ask_for_slot()
            grant = await self._await_grant(holder, queued_at)
            if grant is not None:
                # When this machine is lost next, it is not there to be asked again.
                self._preferred_host = None
                self.held.start()
                return grant
            await self._learn_from_refusal(holder)
            if workflow.now() - asked_at > policies.MAX_REQUEUE_PAUSE:
                # A job that waited at a machine for long must not miss its turn in a pause.
                pauses = policies.requeue_pauses()
            await asyncio.sleep(next(pauses).total_seconds())

    def _ask_for_slot(self) -> workflow.ActivityHandle[None]:
        task_queue, policy = SLOTS_TASK_QUEUE, policies.HOLD_SLOT
        if self._preferred_host is not None:
            task_queue = slots_task_queue_of(self._preferred_host)
            policy = policies.RETURN_TO_SLOT
        request = SlotRequest(
            self._job_id, self._lease, self.needs_claude, self.host_claude_finished_on
        )
        return start(
            SlotActivities.hold_slot,
            request,
            task_queue,
            policy,
            f"lease {self._lease}",
            self._priority,
        )

    @property
    def _priority(self) -> Priority:
        """Before all others where a usage limit may hold those back; slots have their own order."""
        if self.needs_claude and self.host_claude_finished_on is None:
            return Priority.default
        return Priority(priority_key=MIN_PRIORITY)

    async def _await_grant(
        self, holder: workflow.ActivityHandle[None], queued_at: datetime
    ) -> SlotGrant | None:
        remaining = None
        if self._queue_limit is not None:
            remaining = max(queued_at + self._queue_limit - workflow.now(), timedelta())
        try:
            await workflow.wait_condition(
                lambda: self._grant is not None or holder.done(),
                timeout=remaining,
                timeout_summary="queue limit",
            )
        except asyncio.CancelledError:
            await self._abandon()
            raise
        except TimeoutError:
            await self._abandon()
            raise timed_out(TimeLimit.QUEUE) from None
        return self._grant

    async def _learn_from_refusal(self, holder: workflow.ActivityHandle[None]) -> None:
        """Return if another holder may be granted what this one was not."""
        try:
            await holder
        except ActivityError as error:
            if (ended := job_ended(error)) is not None:
                raise ended from error
            if failure_from(error) is not None:
                raise
            if found_nobody(error):
                self._preferred_host = None
            self._lease = max(self._lease, present_lease(error))

    async def _race(self, running: asyncio.Future[T]) -> T:
        """Return the work's result, or raise as soon as the holder has ended before it."""
        holder = self._holder
        assert holder is not None
        await workflow.wait_condition(lambda: running.done() or holder.done())
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await holder
        raise JobFailure(FailureCode.HOST_LOST, "The machine gave the slot back too early.")

    async def _abandon(self) -> None:
        """Let the holder go, whatever its state; a lost one has failed already."""
        self.held.stop()
        holder, self._holder, self._grant = self._holder, None, None
        if holder is not None:
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)
