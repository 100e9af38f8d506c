"""Whose turn it is to hold a slot of this machine.

Temporal hands out `hold_slot` activities nearly in the order of the queue: jobs posted within a few
milliseconds of each other can change places. The store's order is the one the API shows, so a slot
is taken only by the job that the store names.
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

TURN_POLL = timedelta(milliseconds=50)
TURN_PATIENCE = timedelta(seconds=2)
"""How long a slot stays free for an earlier job that does not come: its workflow may not have been
started yet. A workflow task takes tens of milliseconds (measured), so 2 s is long past that."""

HELD_PATIENCE = timedelta(minutes=5)
"""How long a job that a usage limit holds back keeps one of the machine's permits, before it gives
way to what needs no Claude, and to machines that have another credential. Each time adds some ten
events to its history, of which Temporal takes 51,200; the longest limit takes half of them."""

PASSED_BY_FOR = timedelta(minutes=10)
"""How long such a job is not waited for again, unless it comes. Most were cancelled or are held by
another machine by then, so that few are remembered."""


class SlotQueue:
    """Gives this machine's slots to jobs in the order of the store: priority, `queued_at`, id."""

    def __init__(self, store: Store, capacity: HostSlotSupplier, credential: Credential) -> None:
        self._store = store
        self._capacity = capacity
        self._credential = credential
        self._clock = asyncio.get_running_loop().time
        self._passed_by: dict[str, float] = {}

    async def take_slot(
        self, job_id: str, *, returned: bool = False, needs_claude: bool = True
    ) -> None:
        """Wait until a slot is free and it is the job's turn, and take it.

        While Claude's credential is held for a usage limit, the turn of a job that needs Claude
        does not come, and one that needs none waits for no other.

        Args:
            job_id: the job.
            returned: whether it asked for this machine, and so came without a permit.
            needs_claude: whether a held credential keeps it from starting.

        Raises:
            LeaseLost: the worker stops taking jobs, or a usage limit lasts; the job has to ask
                again, and may find another machine.
        """
        self._passed_by.pop(job_id, None)
        came = self._clock()
        awaited, since = None, came
        while not await self._is_turn_of(job_id, needs_claude=needs_claude):
            if activity.is_worker_shutdown():
                raise LeaseLost("This machine takes no more jobs. Another is asked for a slot.")
            if needs_claude and not returned:
                self._give_way(came)
            can_take = await self._can_take(needs_claude=needs_claude)
            # When it is full, the earlier job may be waiting in Temporal's queue to be polled.
            first = await self._first(job_id) if can_take else None
            if first != awaited:
                awaited, since = first, self._clock()
            elif first and self._clock() - since > TURN_PATIENCE.total_seconds():
                self._passed_by[first] = self._clock()
            with self._without_permit(returned):
                await asyncio.sleep(TURN_POLL.total_seconds())
        self._capacity.take_slot(returned=returned)
        # Others may have passed it by while it waited here for a slot.
        self._passed_by.pop(job_id, None)

    def _give_way(self, came: float) -> None:
        """Let others be polled in place of a job that could not start for long."""
        if self._credential.is_known_held and self._clock() - came > HELD_PATIENCE.total_seconds():
            raise LeaseLost("Claude's usage limit lasts on this machine. Any is asked for a slot.")

    def _without_permit(self, returned: bool) -> AbstractContextManager[None]:
        """Let an earlier job be polled; not while none could start, but another machine's could."""
        if returned or self._credential.is_known_held:
            return contextlib.nullcontext()
        return self._capacity.waiting()

    async def _can_take(self, *, needs_claude: bool) -> bool:
        if self._capacity.is_full:
            return False
        return not needs_claude or not await self._credential.is_held()

    async def _is_turn_of(self, job_id: str, *, needs_claude: bool) -> bool:
        """Tell whether the job may take a slot now; one that is in no queue has had its turn."""
        if not await self._can_take(needs_claude=needs_claude):
            return False
        is_next = await self._passes_all(needs_claude=needs_claude) or await self._is_next(job_id)
        return is_next and not self._capacity.is_full

    async def _passes_all(self, *, needs_claude: bool) -> bool:
        """Tell whether the jobs before it could take no slot, however long it waited for them."""
        return not needs_claude and await self._credential.is_held()

    async def _is_next(self, job_id: str) -> bool:
        first = await self._first(job_id)
        return first in {None, job_id} or await self._store.queue_position(job_id) == 0

    async def _first(self, job_id: str) -> str | None:
        """Return whose turn it is, as the holder of `job_id` sees it: itself passed by or not."""
        oldest = self._clock() - PASSED_BY_FOR.total_seconds()
        self._passed_by = {job: at for job, at in self._passed_by.items() if at > oldest}
        return await self._store.first_in_queue(self._passed_by.keys() - {job_id})
