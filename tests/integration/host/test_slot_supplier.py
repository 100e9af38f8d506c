"""Permits to poll: one per slot, and one more for each waiting job."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from host.slots import slot_supplier
from host.slots.slot_supplier import HostSlotSupplier

ANY: Any = cast(Any, None)


class Polls:
    """Reserves permits like the worker."""

    def __init__(self, slots: int) -> None:
        self.capacity = HostSlotSupplier(slots)
        self._waiting: list[asyncio.Task[Any]] = []

    async def ask(self, times: int) -> None:
        for _ in range(times):
            self._waiting.append(asyncio.create_task(self.capacity.reserve_slot(ANY)))
        await asyncio.sleep(0.01)

    @property
    def granted(self) -> int:
        return sum(poll.done() and not poll.cancelled() for poll in self._waiting)

    async def end(self) -> None:
        for poll in self._waiting:
            poll.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


async def test_each_slot_has_a_permit() -> None:
    polls = Polls(2)
    await polls.ask(4)
    assert polls.granted == 2
    assert polls.capacity.try_reserve_slot(ANY) is None
    await asyncio.to_thread(polls.capacity.release_slot, ANY)
    await asyncio.sleep(0.01)
    assert polls.granted == 3
    await polls.end()


async def test_a_waiting_job_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_supplier, "MAX_WAITING", 2)
    polls = Polls(1)
    await polls.ask(9)
    assert polls.granted == 1
    with polls.capacity.waiting(), polls.capacity.waiting(), polls.capacity.waiting():
        await asyncio.sleep(0.01)
        assert polls.granted == 3
    await asyncio.to_thread(polls.capacity.release_slot, ANY)
    await asyncio.sleep(0.01)
    assert polls.granted == 3
    await polls.end()


async def test_a_reservation_that_is_cancelled_takes_no_permit() -> None:
    polls = Polls(1)
    await polls.ask(3)
    await polls.end()
    polls.capacity.release_slot(ANY)
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await polls.capacity.reserve_slot(ANY)


async def test_slots_are_counted() -> None:
    slots = HostSlotSupplier(2)
    full = []
    for change in (slots.take_slot, slots.take_slot, slots.give_slot_back):
        change()
        full.append(slots.is_full)
    assert full == [False, True, False]


async def test_a_returned_job_counts_as_a_permit() -> None:
    polls = Polls(2)
    polls.capacity.take_slot(returned=True)
    await polls.ask(2)
    assert polls.granted == 1
    polls.capacity.give_slot_back(returned=True)
    await asyncio.sleep(0.01)
    assert polls.granted == 2
    await polls.end()
