from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from domain.errors import InvalidRequest, LeaseLost
from domain.jobs import LIVE, JobStatus
from domain.messages import Message, MessageType, NewMessage
from store.protocol import Guard, Store
from tests.unit.store.samples import START, World, a_line, later, lines, new_id


def stored(job_id: str, messages: list[NewMessage], first: int = 1) -> list[Message]:
    return [
        Message(line.id, job_id, line.type, line.content, line.created_at, seq)
        for seq, line in enumerate(messages, first)
    ]


async def test_messages_are_read_as_they_were_written(world: World) -> None:
    job = await world.add_job()
    batch = [
        a_line("what Claude said", type=kind, created_at=later(-number))
        for number, kind in enumerate(MessageType)
    ]
    await world.store.append_messages(job.id, batch)
    assert await world.store.read_messages(job.id, 0, 100) == stored(job.id, batch)


async def test_each_batch_continues_the_numbering(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    first, second, elsewhere = lines(3), lines(4), lines(2)
    await world.store.append_messages(job.id, first)
    await world.store.append_messages(other.id, elsewhere)
    await world.store.append_messages(job.id.upper(), second)
    assert await world.transcript(job) == stored(job.id, first + second)
    assert await world.transcript(other) == stored(other.id, elsewhere)


async def test_a_batch_sent_twice_is_stored_once(world: World) -> None:
    job = await world.add_job()
    batch = lines(5)
    for part in (batch, batch, batch[3:], [batch[0]]):
        await world.store.append_messages(job.id, part)
    assert await world.transcript(job) == stored(job.id, batch)


async def test_the_new_messages_of_a_partly_stored_batch_are_stored(world: World) -> None:
    job = await world.add_job()
    batch = lines(6)
    await world.store.append_messages(job.id, batch[1:3])
    await world.store.append_messages(job.id, batch)
    expected = [*batch[1:3], batch[0], *batch[3:]]
    assert await world.transcript(job) == stored(job.id, expected)


async def test_a_message_twice_in_a_batch_is_stored_once(world: World) -> None:
    job = await world.add_job()
    first, second = lines(2)
    await world.store.append_messages(job.id, [first, second, first])
    assert await world.transcript(job) == stored(job.id, [first, second])


async def test_an_empty_batch_changes_nothing(world: World) -> None:
    job = await world.add_job()
    await world.store.append_messages(job.id, [])
    assert await world.transcript(job) == []


async def test_a_batch_with_a_bad_message_is_refused_completely(world: World) -> None:
    job = await world.add_job()
    with pytest.raises(InvalidRequest):
        await world.store.append_messages(job.id, [*lines(2), a_line(id="line-3")])
    assert await world.transcript(job) == []


@pytest.mark.parametrize("lease", [0, 1, 3])
async def test_a_writer_with_another_lease_stores_nothing(world: World, lease: int) -> None:
    job = await world.add_job(lease=2)
    for batch in (lines(2), []):
        with pytest.raises(LeaseLost):
            await world.store.append_messages(job.id, batch, lease)
    assert await world.transcript(job) == []


async def test_a_writer_that_loses_its_lease_stores_nothing_more(world: World) -> None:
    job = await world.add_job(status=JobStatus.RUNNING)
    batch = lines(4)
    assert await world.store.update_job(job.id, {"lease": 1}, Guard(LIVE, lease_below=1))
    await world.store.append_messages(job.id, batch[:2], 1)
    assert await world.store.update_job(job.id, {"lease": 2}, Guard(LIVE, lease_below=2))
    with pytest.raises(LeaseLost):
        await world.store.append_messages(job.id, batch[2:], 1)
    await world.store.append_messages(job.id, batch[2:3], 2)
    await world.store.append_messages(job.id, batch[3:])
    assert await world.transcript(job) == stored(job.id, batch)


async def test_eight_concurrent_writers_of_a_job_leave_no_gap(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    job = await world.add_job()
    stores = [world.store, await connect()]
    draw = random.Random(1)
    sizes = [[draw.randrange(1, 9) for _ in range(12)] for _ in range(8)]

    async def write(number: int) -> list[str]:
        written = []
        for size in sizes[number]:
            batch = lines(size, f"writer {number}")
            await stores[number % 2].append_messages(job.id, batch)
            written += [line.id for line in batch]
        return written

    written = await asyncio.gather(*(write(number) for number in range(8)))
    found = await world.transcript(job)
    assert [line.seq for line in found] == list(range(1, sum(map(sum, sizes)) + 1))
    for own in written:
        assert [line.id for line in found if line.id in set(own)] == own


async def test_eight_concurrent_writes_of_a_batch_store_it_once(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    job, batch = await world.add_job(), lines(50)
    stores = [world.store, await connect()]
    await asyncio.gather(*(stores[n % 2].append_messages(job.id, batch) for n in range(8)))
    assert await world.transcript(job) == stored(job.id, batch)


@pytest.mark.parametrize("page", [1, 7, 999, 1000, 2500, 5000])
async def test_a_long_message_log_is_read_completely_by_pages(world: World, page: int) -> None:
    count = 2500 if page > 1 else 40
    job, batch = await world.add_job(), lines(count)
    await world.store.append_messages(job.id, batch)
    assert await world.transcript(job, page) == stored(job.id, batch)


async def test_a_hundred_thousand_messages_are_read_completely(world: World) -> None:
    job, count = await world.add_job(), 100_000
    for start in range(0, count, 2000):
        batch = [a_line(f"{start + number}") for number in range(2000)]
        await world.store.append_messages(job.id, batch)
    found = await world.transcript(job)
    assert [line.seq for line in found] == list(range(1, count + 1))
    assert [line.content for line in found] == [f"{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (0, 2, [1, 2]),
        (2, 2, [3, 4]),
        (4, 9, [5]),
        (5, 9, []),
        (2**80, 9, []),
        (0, 0, []),
        (0, 2**80, [1, 2, 3, 4, 5]),
    ],
)
async def test_a_page_begins_after_and_ends_at_its_limit(
    world: World, after: int, limit: int, expected: list[int]
) -> None:
    job = await world.add_job()
    await world.store.append_messages(job.id, lines(5))
    found = await world.store.read_messages(job.id, after, limit)
    assert [line.seq for line in found] == expected


async def test_messages_are_found_by_id_in_the_order_of_the_log(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    batch, elsewhere = lines(5), lines(1)
    await world.store.append_messages(job.id, batch)
    await world.store.append_messages(other.id, elsewhere)
    wanted = [batch[4].id, batch[1].id.upper(), new_id(), elsewhere[0].id, batch[1].id, "no id"]
    expected = stored(job.id, batch)
    assert await world.store.messages_by_id(job.id, wanted) == [expected[1], expected[4]]
    assert await world.store.messages_by_id(job.id, []) == []
    everything = [line.id for line in batch] + [new_id() for _ in range(3000)]
    assert await world.store.messages_by_id(job.id, everything) == expected


async def test_a_cancelled_write_stores_all_of_its_batch_or_none(world: World) -> None:
    jobs = [await world.add_job() for _ in range(20)]
    writers = [asyncio.create_task(world.store.append_messages(job.id, lines(200))) for job in jobs]
    await asyncio.sleep(0)
    await writers[0]
    for writer in writers[1:]:
        writer.cancel()
    ends = await asyncio.gather(*writers, return_exceptions=True)
    assert asyncio.CancelledError in {type(end) for end in ends}
    fresh = await world.add_job()
    await world.store.append_messages(fresh.id, lines(1))
    counts = [len(await world.transcript(job)) for job in jobs]
    assert counts[0] == 200
    assert set(counts) <= {0, 200}
    assert [line.seq for line in await world.transcript(fresh)] == [1]


async def test_cancelled_reads_leave_the_store_unchanged(world: World) -> None:
    job, batch = await world.add_job(), lines(1000)
    await world.store.append_messages(job.id, batch)
    readers = [asyncio.create_task(world.store.read_messages(job.id, 0, 1000)) for _ in range(20)]
    await asyncio.sleep(0)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert await world.transcript(job) == stored(job.id, batch)
    assert (await world.read(job)).created_at == START
