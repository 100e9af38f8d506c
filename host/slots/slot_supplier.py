"""How many jobs this machine takes at once.

Polling for jobs is what takes them, so it is done with permits: one a slot. A job that came before
its turn, or when no slot is free any more, does not count while it waits, so that the job it waits
for can still arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

MAX_WAITING = 50
"""Most waiting jobs that are not counted; bounds what a race can pull in."""


class HostSlotSupplier(CustomSlotSupplier):
    """Gives out polling permits and counts the slots that are taken; for use from one event loop.

    The worker cancels reservations that still wait when it shuts down.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._permits = 0
        self._waiting = 0
        self._taken = 0
        self._returned = 0
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a permit to poll."""
        while self._permits + self._returned >= self.slots + min(self._waiting, MAX_WAITING):
            self._news.clear()
            await self._news.wait()
        self._permits += 1
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """Never: eager dispatch would pass the queue by."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing to do: a permit counts from its reservation."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Take a permit back; called from any thread."""
        self._loop.call_soon_threadsafe(self._take_back)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count a job that is here, but has no slot yet."""
        self._waiting += 1
        self._news.set()
        try:
            yield
        finally:
            self._waiting -= 1

    @property
    def is_full(self) -> bool:
        """Whether as many jobs as there are slots hold one."""
        return self._taken >= self.slots

    def take_slot(self, *, returned: bool = False) -> None:
        """Let a job hold one of the slots; not when it `is_full`.

        One that `returned` to this machine came without a permit, and takes the place of one.
        """
        self._taken += 1
        self._returned += returned

    def give_slot_back(self, *, returned: bool = False) -> None:
        """Let another job have it."""
        self._taken -= 1
        self._returned -= returned
        self._news.set()

    def _take_back(self) -> None:
        self._permits -= 1
        self._news.set()
