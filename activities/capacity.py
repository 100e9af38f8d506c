"""How many jobs this machine takes at once, and in which order it grants its slots.

Temporal hands out `hold_slot` activities nearly in the order of the queue: jobs posted within a few
milliseconds of each other can change places. The store's order is the one the API shows, so a
holder waits until it is its job's turn there. While it waits it does not count against the
machine's slots, so that the job it waits for can still arrive.
"""

from __future__ import annotations

import asyncio

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

MAX_YIELDING = 50
"""Most holders that may wait for an earlier job at once; bounds what a race can pull in."""


class Capacity(CustomSlotSupplier):
    """Gives out polling permits: one a slot, and one more for each holder that yields its turn.

    Used from one event loop; `close` ends waiting reservations at shutdown.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._permits = 0
        self._yielding = 0
        self._free = asyncio.Condition()
        self._granted = asyncio.Semaphore(slots)
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a permit to poll."""
        async with self._free:
            await self._free.wait_for(self._has_permit)
            self._permits += 1
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """Never: eager dispatch would pass the queue by."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing to do: a permit counts from its reservation."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Take a permit back."""
        self._loop.call_soon_threadsafe(self._give_back)

    async def yield_turn(self) -> None:
        """Stop counting the calling holder, so that another can arrive."""
        self._yielding += 1
        await self._wake()

    def resume_turn(self) -> None:
        """Count the calling holder again."""
        self._yielding -= 1

    async def take_slot(self) -> None:
        """Wait until fewer than `slots` jobs hold one, and take it."""
        await self._granted.acquire()

    def give_slot_back(self) -> None:
        """Let the next holder have it."""
        self._granted.release()

    def _has_permit(self) -> bool:
        return self._permits < self.slots + min(self._yielding, MAX_YIELDING)

    def _give_back(self) -> None:
        self._permits -= 1
        self._waking = self._loop.create_task(self._wake())

    async def _wake(self) -> None:
        async with self._free:
            self._free.notify_all()
