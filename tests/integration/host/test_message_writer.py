"""Messages are written completely, in order and once, without delaying their job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest

from domain.errors import LeaseLost
from domain.jobs import LIVE, Job
from domain.messages import MAX_CONTENT_CHARACTERS, MessageType
from host import message_writer
from host.message_writer import FLUSH_CHARACTERS, FLUSH_LINES, MessageWriter
from host.slots.leases import Lease, LeaseKey
from store import retrying
from store.protocol import Guard
from store.retrying import retrying_store
from tests.integration.activities.outages import Outages
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World

OUT = MessageType.STDOUT
NEVER = timedelta(hours=1)


@dataclass(frozen=True)
class Desk:
    """A job with lease 1, and a store that can fail."""

    world: World
    job: Job
    outages: Outages

    def writer(self, lease: int = 1) -> MessageWriter:
        return MessageWriter(retrying_store(self.outages.store), self.job.id, lease)

    async def written(self) -> list[str]:
        return [line.content for line in await self.world.transcript(self.job)]

    @property
    def batches(self) -> list[int]:
        """How many lines each write had."""
        return [len(batch[1]) for batch in self.outages.arguments.get("append_messages", [])]

    async def lose_lease(self) -> None:
        assert await self.world.store.update_job(self.job.id, {"lease": 2}, Guard(LIVE))


@pytest.fixture
async def desk(world: World) -> Desk:
    return Desk(world, await world.add_job(lease=1), Outages(world.store))


@pytest.fixture
def only_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write batches only when they are full, not by time."""
    monkeypatch.setattr(message_writer, "FLUSH_INTERVAL", NEVER)


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSE", timedelta(milliseconds=5))


async def test_messages_keep_their_order_and_type(desk: Desk) -> None:
    kinds = [MessageType.STDERR if number % 7 == 0 else OUT for number in range(1234)]
    async with desk.writer() as writer:
        for number, kind in enumerate(kinds):
            await writer.add(kind, f"line {number}")
    lines = await desk.world.transcript(desk.job)
    assert [line.content for line in lines] == [f"line {number}" for number in range(1234)]
    assert [line.type for line in lines] == kinds
    assert [line.seq for line in lines] == list(range(1, 1235))
    assert max(desk.batches) == FLUSH_LINES
    assert len(desk.batches) < 20


@pytest.mark.usefixtures("only_full")
async def test_a_batch_is_limited_by_count(desk: Desk) -> None:
    async with desk.writer() as writer:
        for number in range(FLUSH_LINES - 1):
            await writer.add(OUT, str(number))
        await asyncio.sleep(0.05)
        assert desk.batches == []
        await writer.add(OUT, "the last")
        await eventually(lambda: desk.batches == [FLUSH_LINES])


@pytest.mark.usefixtures("only_full")
async def test_a_batch_is_limited_by_size(desk: Desk) -> None:
    part = "x" * (FLUSH_CHARACTERS // 5 * 2)
    async with desk.writer() as writer:
        for _ in range(3):
            await writer.add(OUT, part)
        await eventually(lambda: desk.batches == [2])
    assert desk.batches == [2, 1]
    assert await desk.written() == [part] * 3


async def test_a_line_larger_than_a_batch_is_written_alone(desk: Desk) -> None:
    async with desk.writer() as writer:
        for text in ("before", "x" * 2 * FLUSH_CHARACTERS, "after"):
            await writer.add(OUT, text)
    assert [len(line) for line in await desk.written()] == [6, 2 * FLUSH_CHARACTERS, 5]


async def test_a_single_line_is_written_without_waiting_for_more(desk: Desk) -> None:
    async with desk.writer() as writer:
        await writer.add(OUT, "hello")
        await eventually(lambda: desk.outages.done["append_messages"] == 1)
        assert await desk.written() == ["hello"]


async def test_text_that_cannot_be_stored_is_sanitized(desk: Desk) -> None:
    async with desk.writer() as writer:
        await writer.add(OUT, "a\x00b\ud800c")
        await writer.add(OUT, "y" * (MAX_CONTENT_CHARACTERS + 1))
    mended, cut = await desk.written()
    assert mended == "a\ufffdb\ufffdc"
    assert len(cut) == MAX_CONTENT_CHARACTERS
    assert cut.endswith("[cut: 1048577 characters]")


@pytest.mark.usefixtures("quick_retry")
async def test_add_waits_while_too_much_is_unwritten(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_writer, "MAX_WAITING_CHARACTERS", 1000)
    added: list[int] = []

    async def read_all(writer: MessageWriter) -> None:
        for number in range(50):
            await writer.add(OUT, f"{number:0100}")
            added.append(number)

    desk.outages.is_down = True
    async with desk.writer() as writer:
        reading = asyncio.create_task(read_all(writer))
        await eventually(lambda: desk.outages.calls["append_messages"] > 5)
        assert added == list(range(10))
        desk.outages.is_down = False
        await asyncio.wait_for(reading, 10)
    assert [int(line) for line in await desk.written()] == list(range(50))


@pytest.mark.usefixtures("quick_retry")
async def test_outages_neither_lose_nor_duplicate_messages(desk: Desk) -> None:
    faults = ("before", "after", "after", "before", "", "after", "", "before")
    desk.outages.fail("append_messages", *faults)
    async with desk.writer() as writer:
        for number in range(450):
            await writer.add(OUT, str(number))
            if number % 60 == 0:
                await asyncio.sleep(0.01)
    assert [int(line) for line in await desk.written()] == list(range(450))
    assert desk.outages.calls["append_messages"] > len(faults)


async def test_leaving_flushes_the_rest_even_after_an_error(desk: Desk) -> None:
    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "last words")
            raise ValueError("Claude failed")

    with pytest.raises(ValueError, match="Claude failed"):
        await turn()
    assert await desk.written() == ["last words"]


async def test_leaving_immediately_writes_nothing(desk: Desk) -> None:
    async with desk.writer():
        pass
    assert desk.batches == []


async def test_add_raises_after_the_lease_was_lost(desk: Desk) -> None:
    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "too late")
            await eventually(lambda: desk.batches == [1])
            while True:
                await writer.add(OUT, "much too late")
                await asyncio.sleep(0)

    await desk.lose_lease()
    with pytest.raises(LeaseLost, match="has lease 2"):
        await turn()
    assert await desk.written() == []


async def test_leaving_raises_after_the_lease_was_lost(desk: Desk) -> None:
    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "all in time")
            await eventually(lambda: desk.outages.done["append_messages"] == 1)
            await desk.lose_lease()
            await writer.add(OUT, "too late")

    with pytest.raises(LeaseLost, match="has lease 2"):
        await turn()
    assert await desk.written() == ["all in time"]


async def test_a_waiting_add_raises_when_the_lease_is_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_writer, "MAX_WAITING_CHARACTERS", 10)
    await desk.lose_lease()
    desk.outages.gate.clear()

    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "x" * 10)
            waiting = asyncio.create_task(writer.add(OUT, "one more"))
            await eventually(lambda: desk.batches == [1])
            assert not waiting.done()
            desk.outages.gate.set()
            await asyncio.wait_for(waiting, 10)

    with pytest.raises(LeaseLost):
        await turn()


async def test_a_stopped_job_does_not_wait_for_an_outage(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(message_writer, "LAST_FLUSH", timedelta(seconds=0.2))
    desk.outages.is_down = True
    lease = Lease(LeaseKey(desk.job.id, 1))

    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "lost")
            await asyncio.Event().wait()

    running = asyncio.create_task(lease.run(turn()))
    await eventually(lambda: desk.outages.calls["append_messages"] > 0)
    await asyncio.wait_for(lease.stop(), 5)
    with pytest.raises(LeaseLost):
        await running
    assert "1 messages were not stored" in caplog.text


async def test_a_stopped_job_writes_its_last_messages(desk: Desk) -> None:
    lease = Lease(LeaseKey(desk.job.id, 1))

    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "last words")
            await asyncio.Event().wait()

    running = asyncio.create_task(lease.run(turn()))
    await asyncio.sleep(0.01)
    await lease.stop()
    with pytest.raises(LeaseLost):
        await running
    assert await desk.written() == ["last words"]


async def test_the_final_flush_can_be_cancelled(desk: Desk) -> None:
    async def turn() -> None:
        async with desk.writer() as writer:
            await writer.add(OUT, "never written")

    desk.outages.is_down = True
    running = asyncio.create_task(turn())
    await eventually(lambda: desk.outages.calls["append_messages"] > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
