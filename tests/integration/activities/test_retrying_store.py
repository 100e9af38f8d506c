"""A store that retries during outages."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from domain.errors import Conflict, LeaseLost
from domain.messages import NewMessage
from store import retrying
from store.retrying import retrying_store
from tests.integration.activities.outages import Outages
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World, a_client, a_line, new_id


@pytest.fixture
def outages(world: World, monkeypatch: pytest.MonkeyPatch) -> Outages:
    monkeypatch.setattr(retrying, "PAUSE", timedelta(milliseconds=10))
    return Outages(world.store)


async def test_a_call_is_retried_until_the_store_answers(world: World, outages: Outages) -> None:
    job = await world.add_job(lease=1)
    outages.fail("append_messages", "before", "after", "after")
    store, line = retrying_store(outages.store), a_line("once")
    await store.append_messages(job.id, [line], lease=1)
    assert [stored.content for stored in await store.read_messages(job.id, 0, 10)] == ["once"]
    assert outages.calls["append_messages"] == 4
    assert outages.calls["read_messages"] == 1


async def test_an_answer_of_the_store_is_not_retried(world: World, outages: Outages) -> None:
    job = await world.add_job(lease=2)
    store = retrying_store(outages.store)
    late: list[NewMessage] = [a_line()]
    with pytest.raises(LeaseLost):
        await store.append_messages(job.id, late, 1)
    await store.create_client(a_client("Twin"))
    with pytest.raises(Conflict):
        await store.add_repository(replace(world.repository, id=new_id()))
    assert set(outages.calls.values()) == {1}


async def test_retries_end_when_the_call_is_cancelled(outages: Outages) -> None:
    outages.is_down = True
    waiting = asyncio.create_task(retrying_store(outages.store).ping())
    await eventually(lambda: outages.calls["ping"] > 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
