"""Admit jobs to the slots of this host in the order of the queue.

Temporal delivers `hold_slot` activities almost in the order of the queue: jobs that were posted
within a few milliseconds can change places. The API shows the order of the store, so a job takes a
slot only if the store says that it is next.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractContextManager
from datetime import timedelta

from temporalio import activity

from domain.errors import LeaseLost
from host.slots.credential_holds import Credential
from host.slots.slot_supplier import HostSlotSupplier
from store.protocol import Store

POLL_INTERVAL = timedelta(milliseconds=50)
"""Delay of a start that a person cannot notice; a poll is one or two reads of the store."""
EARLIER_JOB_TIMEOUT = timedelta(seconds=2)
"""How long a slot stays free for an earlier job, whose workflow may not have started yet.
A workflow task takes tens of milliseconds (measured), so 2 s is enough."""

USAGE_LIMIT_TIMEOUT = timedelta(minutes=5)
"""How long a job that waits for a usage limit keeps a permit of this host. It is then requeued, so
that jobs that do not need Claude can start, and so that a host with another credential can take it.
Each time adds about ten events to its history, which Temporal limits to 51,200; the longest usage
limit uses half of them."""

SKIP_FOR = timedelta(minutes=10)
"""How long an absent job is skipped, unless it arrives. After that time most absent jobs were
cancelled or run on another host, so few ids are stored."""


class SlotQueue:
    """Gives the slots of this host to jobs in the order of the store: priority, `queued_at`, id."""

    def __init__(self, store: Store, capacity: HostSlotSupplier, credential: Credential) -> None:
        self._store = store
        self._capacity = capacity
        self._credential = credential
        self._clock = asyncio.get_running_loop().time
        self._skipped: dict[str, float] = {}

    async def take_slot(
        self, job_id: str, *, returned: bool = False, needs_claude: bool = True
    ) -> None:
        """Wait until a slot is free and it is the job's turn, and take it.

        While a usage limit holds the credential, a job that needs Claude does not start, and other
        jobs do not wait for it.

        Args:
            job_id: the job.
            returned: whether the job asked for this host in particular, without a permit.
            needs_claude: whether a held credential prevents its start.

        Raises:
            LeaseLost: the worker is shutting down, or the usage limit lasts. The job must ask
                again, and may then get another host.
        """
        self._skipped.pop(job_id, None)
        arrived = self._clock()
        awaited, since = None, arrived
        while not await self._may_start(job_id, needs_claude=needs_claude):
            if activity.is_worker_shutdown():
                raise LeaseLost("This host is shutting down. The job asks another host for a slot.")
            if needs_claude and not returned:
                self._requeue_if_held(arrived)
            can_take = await self._can_take(needs_claude=needs_claude)
            # If the host is full, the earlier job may still be in Temporal's queue.
            first = await self._first(job_id) if can_take else None
            if first != awaited:
                awaited, since = first, self._clock()
            elif first and self._clock() - since > EARLIER_JOB_TIMEOUT.total_seconds():
                self._skipped[first] = self._clock()
            with self._without_permit(returned):
                await asyncio.sleep(POLL_INTERVAL.total_seconds())
        self._capacity.take_slot(returned=returned)
        # Other jobs may have skipped this one while it waited for a slot.
        self._skipped.pop(job_id, None)

    def _requeue_if_held(self, arrived: float) -> None:
        """Requeue a job that a usage limit has held for too long."""
        waited = self._clock() - arrived
        if self._credential.is_known_held and waited > USAGE_LIMIT_TIMEOUT.total_seconds():
            raise LeaseLost("Claude's usage limit lasts on this host. The job asks any host again.")

    def _without_permit(self, returned: bool) -> AbstractContextManager[None]:
        """Release the permit while waiting, so that an earlier job can be polled.

        Not during a usage limit: a job that is polled here could start on another host instead.
        """
        if returned or self._credential.is_known_held:
            return contextlib.nullcontext()
        return self._capacity.waiting()

    async def _can_take(self, *, needs_claude: bool) -> bool:
        if self._capacity.is_full:
            return False
        return not needs_claude or not await self._credential.is_held()

    async def _may_start(self, job_id: str, *, needs_claude: bool) -> bool:
        if not await self._can_take(needs_claude=needs_claude):
            return False
        may_skip = await self._ignores_order(needs_claude=needs_claude)
        is_next = may_skip or await self._is_next(job_id)
        return is_next and not self._capacity.is_full

    async def _ignores_order(self, *, needs_claude: bool) -> bool:
        """Return whether no earlier job can start: a usage limit holds those that need Claude."""
        return not needs_claude and await self._credential.is_held()

    async def _is_next(self, job_id: str) -> bool:
        # A job that is not queued any more was admitted before; it has no position.
        first = await self._first(job_id)
        return first in {None, job_id} or await self._store.queue_position(job_id) == 0

    async def _first(self, job_id: str) -> str | None:
        """Return the first job in the queue, without those that `job_id` need not wait for."""
        oldest = self._clock() - SKIP_FOR.total_seconds()
        self._skipped = {job: at for job, at in self._skipped.items() if at > oldest}
        return await self._store.first_in_queue(self._skipped.keys() - {job_id})
