"""The slot that a job holds on a host, as its workflow sees it.

The slot is an activity that runs as long as the job needs the host (Temporal's session pattern). If
the host is lost, the activity fails because its heartbeats stop. The work then continues under the
next lease: on the same host if a process runs there again, otherwise on any host.
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
        current_lease,
        failure_from,
        found_no_worker,
        job_ended,
        was_given_up,
    )
    from activities.job_records import (
        RECORDS_TASK_QUEUE,
        EndLimitWaitInput,
        RecordActivities,
        RequeueInput,
        WaitForLimitInput,
    )
    from activities.slots import (
        SLOTS_TASK_QUEUE,
        HoldSlotInput,
        ReleaseSlotInput,
        SlotActivities,
        SlotGrant,
        StopWorkInput,
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
    """Acquires leases for one job, one after the other.

    Args:
        job_id: the job.
        lease_number: the number of its newest lease.
        last_grant: the last slot that it held.
        held: measures how long it holds slots.
        queue_limit: how long it may wait for each grant; None is no limit.
        preferred_host: the host that has its work already.
        needs_claude: whether the job still needs Claude. If not, or on the host
            `host_claude_finished_on`, a usage limit does not stop it from getting a slot. The
            job's workflow keeps both up to date.
    """

    def __init__(
        self,
        job_id: str,
        lease_number: int = 0,
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
        self._lease_number = lease_number
        self._queue_limit = queue_limit
        self._preferred_host = preferred_host
        self._grant: SlotGrant | None = None
        self._last_grant = last_grant
        self._holder: workflow.ActivityHandle[None] | None = None
        self._stopping = False

    @property
    def lease_number(self) -> int:
        """The number of the newest lease."""
        return self._lease_number

    @property
    def lease(self) -> LeaseKey:
        """The newest lease."""
        return LeaseKey(self._job_id, self._lease_number)

    @property
    def grant(self) -> SlotGrant | None:
        """The slot that is held now."""
        return self._grant

    @property
    def last_grant(self) -> SlotGrant | None:
        """The slot that was held last. Its host has the worktree."""
        return self._last_grant

    def raise_if_cancelled(self) -> None:
        """Check between two steps, because a step that publishes is finished even when cancelled.

        Raises:
            asyncio.CancelledError: the job is being cancelled.
        """
        if self._stopping:
            raise asyncio.CancelledError

    def accept(self, grant: SlotGrant) -> None:
        """Accept a grant. A grant for an older lease arrives too late and is ignored."""
        if grant.lease == self._lease_number:
            self._grant = self._last_grant = grant

    async def work(self, work: Work[T]) -> T:
        """Do `work` on a host. If the host is lost, call `work` again on the next.

        `work` must continue from the state that it finds. If it raises `RetryLater`, the slot is
        released until then. When this returns or raises, the slot is **still held**, so that the
        caller can clean up on the host before `release`.

        Raises:
            JobFailure: HOST_LOST after too many losses in a row; TIMED_OUT in the queue.
            Exception: any other error of `work`.
            JobEnded: the store has a final status for the job.
            asyncio.CancelledError: the workflow was cancelled. The work on the host is stopped.
        """
        losses = 0
        while losses < policies.MAX_HOST_LOSSES:
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
            except RetryLater as retry:
                await self._wait_without_slot(retry)
            except ActivityError as error:
                if failure_from(error) is not None:
                    raise
                ran_long = self.held.elapsed - held_before > policies.HOST_LOSS_RESET
                losses = 1 if ran_long else losses + 1
                await self._requeue_after_host_loss(error)
        raise JobFailure(FailureCode.HOST_LOST)

    async def stop(self) -> None:
        """Stop the work on the host and wait until it has ended. The slot is still held."""
        await self.run_on_host(SlotActivities.stop_work, StopWorkInput(self.lease), policies.STOP)

    async def release(self) -> None:
        """Release the slot; no-op if none is held."""
        await self.run_on_host(
            SlotActivities.release_slot, ReleaseSlotInput(self.lease), policies.STOP
        )
        await self._cancel_holder()

    async def run_on_host(
        self, activity: Activity[Activities, Request, None], request: Request, policy: Policy
    ) -> bool:
        """Run an activity on the host and return whether it succeeded.

        Returns false if no slot is held or the host is lost before it answers.
        """
        if self._grant is None or self._is_lost:
            return False
        handle = start(activity, request, self._grant.task_queue, policy)
        await workflow.wait_condition(lambda: handle.done() or self._is_lost)
        if not handle.done():
            handle.cancel()
        try:
            await handle
        except ActivityError as error:
            workflow.logger.warning("The host did not answer: %s", error.cause)
            return False
        return True

    @property
    def _is_lost(self) -> bool:
        """Whether `hold_slot` has failed: the host is gone or has given the job up."""
        holder = self._holder
        return holder is not None and holder.done() and holder.exception() is not None

    async def _requeue_after_host_loss(self, error: ActivityError) -> None:
        """Record that the job waits for a slot again, at its old place in the queue."""
        if was_given_up(error) and self._grant is not None:
            self._preferred_host = self._grant.host_id
        await self._cancel_holder()
        await perform(
            RecordActivities.requeue, RequeueInput(self.lease), RECORDS_TASK_QUEUE, policies.RECORD
        )

    async def _wait_without_slot(self, retry: RetryLater) -> None:
        """Release the slot, wait, and return to the old place in the queue."""
        if self._grant is not None:
            self._preferred_host = self._grant.host_id
        wait = WaitForLimitInput(self.lease, retry.until, retry.reason)
        await perform(RecordActivities.wait_for_limit, wait, RECORDS_TASK_QUEUE, policies.RECORD)
        await self.release()
        workflow.set_current_details(f"{retry.reason} Resumes at {retry.until:%F %T} UTC")
        remaining = max(retry.until - workflow.now(), timedelta())
        await workflow.sleep(remaining, summary="usage limit or overload")
        await perform(
            RecordActivities.end_limit_wait,
            EndLimitWaitInput(self.lease),
            RECORDS_TASK_QUEUE,
            policies.RECORD,
        )

    async def _acquire(self) -> SlotGrant:
        queued_at = workflow.now()
        backoff = policies.requeue_backoff()
        while True:
            self._lease_number += 1
            self._grant = None
            asked_at = workflow.now()
            holder = self._holder = self._ask_for_slot()
            grant = await self._await_grant(holder, queued_at)
            if grant is not None:
                # Asked for once: if this host is lost next, the job accepts any host.
                self._preferred_host = None
                self.held.start()
                return grant
            await self._check_refusal(holder)
            if workflow.now() - asked_at > policies.MAX_REQUEUE_BACKOFF:
                # A job that has waited long for a slot must not miss its turn in a long backoff.
                backoff = policies.requeue_backoff()
            await asyncio.sleep(next(backoff).total_seconds())

    def _ask_for_slot(self) -> workflow.ActivityHandle[None]:
        task_queue, policy = SLOTS_TASK_QUEUE, policies.HOLD_SLOT
        if self._preferred_host is not None:
            task_queue = slots_task_queue_of(self._preferred_host)
            policy = policies.RETURN_TO_SLOT
        request = HoldSlotInput(self.lease, self.needs_claude, self.host_claude_finished_on)
        return start(
            SlotActivities.hold_slot,
            request,
            task_queue,
            policy,
            f"lease {self._lease_number}",
            self._priority,
        )

    @property
    def _priority(self) -> Priority:
        """The priority in Temporal's queue; the order of slots comes from the store.

        Jobs that need no Claude go first, because a usage limit may hold back all others.
        """
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
            await self._cancel_holder()
            raise
        except TimeoutError:
            await self._cancel_holder()
            raise timed_out(TimeLimit.QUEUE) from None
        return self._grant

    async def _check_refusal(self, holder: workflow.ActivityHandle[None]) -> None:
        """Return if asking for another slot makes sense.

        Raises:
            JobEnded: the store has a final status for the job.
            ActivityError: a failure of the job itself.
        """
        try:
            await holder
        except ActivityError as error:
            if (ended := job_ended(error)) is not None:
                raise ended from error
            if failure_from(error) is not None:
                raise
            if found_no_worker(error):
                self._preferred_host = None
            self._lease_number = max(self._lease_number, current_lease(error))

    async def _race(self, running: asyncio.Future[T]) -> T:
        """Return the result of the work. Raise if the slot ends first."""
        holder = self._holder
        assert holder is not None
        await workflow.wait_condition(lambda: running.done() or holder.done())
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await holder
        raise JobFailure(
            FailureCode.HOST_LOST,
            "The host released the slot while the job was running. Retry the job.",
        )

    async def _cancel_holder(self) -> None:
        """End `hold_slot`, whatever its state. On a lost host it has failed already."""
        self.held.stop()
        holder, self._holder, self._grant = self._holder, None, None
        if holder is not None:
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)
