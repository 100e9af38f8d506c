from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from domain.jobs import JobType
from domain.messages import MessageType, NewMessage
from store.protocol import Store
from tests.unit.store.samples import RawTables, World, a_line, later, lines, new_id


def a_message(content: str = "go on") -> NewMessage:
    return a_line(content, type=MessageType.USER_INPUT, created_at=later(9))


async def test_a_taken_message_is_in_the_message_log(world: World) -> None:
    job, message = await world.add_job(job_type=JobType.TASK), a_message()
    await world.store.append_messages(job.id, lines(2))
    await world.store.put_in_inbox(job.id, message)
    assert len(await world.transcript(job)) == 2
    assert await world.store.take_from_inbox(job.id, message.id)
    found = (await world.transcript(job))[-1]
    assert (found.id, found.seq, found.content) == (message.id, 3, "go on")
    assert (found.type, found.created_at) == (MessageType.USER_INPUT, message.created_at)


async def test_messages_are_logged_in_the_order_of_taking(world: World) -> None:
    job = await world.add_job()
    messages = [a_message(f"{number}") for number in range(3)]
    for message in messages:
        await world.store.put_in_inbox(job.id, message)
    for message in reversed(messages):
        assert await world.store.take_from_inbox(job.id, message.id)
    assert [line.content for line in await world.transcript(job)] == ["2", "1", "0"]


async def test_putting_and_taking_are_idempotent(world: World, tables: RawTables) -> None:
    job, message = await world.add_job(), a_message()
    for _ in range(2):
        await world.store.put_in_inbox(job.id, message)
    for _ in range(2):
        assert await world.store.take_from_inbox(job.id.upper(), message.id.upper())
    await world.store.put_in_inbox(job.id, replace(message, content="again"))
    assert await tables.select("agent_job_inbox") == []
    assert await world.store.take_from_inbox(job.id, message.id)
    assert [line.content for line in await world.transcript(job)] == ["go on"]


async def test_a_message_put_twice_keeps_its_first_content(world: World) -> None:
    job, message = await world.add_job(), a_message()
    await world.store.put_in_inbox(job.id, message)
    await world.store.put_in_inbox(job.id, replace(message, content="changed"))
    assert await world.store.take_from_inbox(job.id, message.id)
    assert [line.content for line in await world.transcript(job)] == ["go on"]


async def test_taking_a_logged_message_returns_true(world: World) -> None:
    job, (line,) = await world.add_job(), lines(1)
    await world.store.append_messages(job.id, [line])
    assert await world.store.take_from_inbox(job.id, line.id)


async def test_the_message_of_another_job_cannot_be_taken(world: World) -> None:
    job, other, message = await world.add_job(), await world.add_job(), a_message()
    await world.store.put_in_inbox(other.id, message)
    assert not await world.store.take_from_inbox(job.id, message.id)
    assert await world.transcript(job) == []
    assert await world.store.take_from_inbox(other.id, message.id)
    assert not await world.store.take_from_inbox(job.id, message.id)


async def test_eight_concurrent_takes_of_a_message_succeed_and_store_it_once(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    job, message = await world.add_job(), a_message()
    await world.store.put_in_inbox(job.id, message)
    stores = [world.store, await connect()]
    taken = await asyncio.gather(
        *(stores[number % 2].take_from_inbox(job.id, message.id) for number in range(8))
    )
    assert taken == [True] * 8
    assert [line.id for line in await world.transcript(job)] == [message.id]


async def test_an_unknown_message_cannot_be_taken(world: World) -> None:
    job = await world.add_job()
    await world.store.put_in_inbox(job.id, a_message())
    assert not await world.store.take_from_inbox(job.id, new_id())
