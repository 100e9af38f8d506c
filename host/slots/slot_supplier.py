"""Limit the number of jobs that this host takes at once.

A poll that returns a job has taken it, so polls need permits, one per slot. A job that waits here
for an earlier job or for a free slot does not count, so that the earlier job can be polled.
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
"""Maximum number of waiting jobs that do not count; limits the jobs that a race can take."""


class HostSlotSupplier(CustomSlotSupplier):
    """Grants permits to poll and counts the taken slots; for use from one event loop.

    When the worker shuts down, it cancels the reservations that still wait.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._permits = 0
        self._waiting = 0
        self._taken = 0
        self._returned = 0
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a permit to poll."""
        while self._permits + self._returned >= self.slots + min(self._waiting, MAX_WAITING):
            self._changed.clear()
            await self._changed.wait()
        self._permits += 1
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """Return None: eager dispatch would bypass the queue."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Do nothing: a permit counts from its reservation."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Take a permit back. Thread-safe."""
        self._loop.call_soon_threadsafe(self._take_back)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count a job that has been polled but has no slot yet."""
        self._waiting += 1
        self._changed.set()
        try:
            yield
        finally:
            self._waiting -= 1

    @property
    def is_full(self) -> bool:
        """Whether every slot is taken."""
        return self._taken >= self.slots

    def take_slot(self, *, returned: bool = False) -> None:
        """Take a slot; only if it is not `is_full`.

        A job that `returned` to this host has no permit, so its slot counts as one.
        """
        self._taken += 1
        self._returned += returned

    def give_slot_back(self, *, returned: bool = False) -> None:
        """Free a slot."""
        self._taken -= 1
        self._returned -= returned
        self._changed.set()

    def _take_back(self) -> None:
        self._permits -= 1
        self._changed.set()
