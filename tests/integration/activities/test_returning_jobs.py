"""Jobs that return to the host with their work, and jobs that wait for a usage limit."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import Client as TemporalClient

from domain.jobs import RetryFrom
from domain.timestamps import utc_now
from host.slots import admission, credential_holds
from host.slots.credential_holds import Credential
from host.slots.slot_supplier import HostSlotSupplier
from tests.integration.activities.holders import CREDENTIAL, Ended, SlotHost
from tests.integration.host.test_admission import queued
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World, later


async def test_a_host_takes_the_jobs_that_return_to_it(world: World, slot_host: SlotHost) -> None:
    returning, other = await queued(world, 2)
    async with slot_host.poll():
        await slot_host.ask(returning, returning=True)
        await slot_host.ask(other)
        await slot_host.until_held(returning, other)


async def test_returning_jobs_share_the_slots_of_the_host(
    world: World, slot_host: SlotHost
) -> None:
    jobs = await queued(world, 6)
    async with slot_host.poll():
        for number, job in enumerate(jobs):
            await slot_host.ask(job, returning=number % 2 == 0)
        for first, second in ((0, 1), (2, 3), (4, 5)):
            await slot_host.until_held(jobs[first], jobs[second])
            await slot_host.release(jobs[first])
            await slot_host.release(jobs[second])
    assert slot_host.leases.taken == [job.id for job in jobs]
    assert slot_host.leases.most_at_once == 2


async def test_another_host_does_not_take_returning_jobs(
    temporal: TemporalClient, world: World, slot_host: SlotHost
) -> None:
    [returning] = await queued(world, 1)
    other = SlotHost(temporal, world.store, 2)
    async with other.poll():
        await slot_host.ask(returning, returning=True)
        await asyncio.sleep(0.5)
        assert other.leases.taken == []
    async with slot_host.poll():
        await slot_host.until_held(returning)


async def test_no_job_starts_while_the_credential_is_held(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if another host reached the limit while jobs wait on this host."""
    monkeypatch.setattr(credential_holds, "REFRESH_INTERVAL", timedelta(milliseconds=50))
    elsewhere = Credential(world.store, CREDENTIAL)
    until = utc_now() + timedelta(seconds=2)
    await elsewhere.hold(until)
    first, second, third = await queued(world, 3)
    async with slot_host.poll():
        await slot_host.ask(first)
        await slot_host.ask(second, returning=True)
        await slot_host.ask(third)
        await slot_host.until_held(first, second)
        assert utc_now() >= until
        await slot_host.release(first)
        await slot_host.until_held(second, third)
    assert slot_host.leases.taken == [first.id, second.id, third.id]


async def test_other_credentials_are_not_held(world: World, slot_host: SlotHost) -> None:
    await Credential(world.store, "another").hold(utc_now() + timedelta(hours=1))
    [job] = await queued(world, 1)
    async with slot_host.poll():
        await slot_host.ask(job)
        await slot_host.until_held(job)


async def test_an_implausible_limit_holds_nothing(world: World) -> None:
    here = Credential(world.store, CREDENTIAL)
    await here.hold(utc_now() + timedelta(days=400))
    assert not await here.is_held()
    await here.hold(utc_now() + timedelta(days=6))
    assert await here.is_held()


async def test_a_held_host_leaves_jobs_to_others(
    temporal: TemporalClient, world: World, slot_host: SlotHost
) -> None:
    """It takes only as many jobs as it has slots; hosts with another credential take the rest."""
    await Credential(world.store, CREDENTIAL).hold(utc_now() + timedelta(hours=1))
    jobs = await queued(world, 6)
    async with slot_host.poll():
        for job in jobs:
            await slot_host.ask(job)
        await asyncio.sleep(1)
        assert slot_host.capacity._permits == slot_host.capacity.slots
    assert slot_host.leases.taken == []


async def test_a_publishing_job_does_not_wait_for_a_usage_limit(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for earlier jobs, which cannot start now."""
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(hours=1))
    await Credential(world.store, CREDENTIAL).hold(utc_now() + timedelta(hours=1))
    waiting, _ = await queued(world, 2)
    publishing = await world.add_job(queued_at=later(9), retry_from=RetryFrom.PUBLISH)
    async with slot_host.poll():
        await slot_host.ask(waiting)
        await slot_host.ask(publishing, needs_claude=False)
        await slot_host.until_held(publishing)


async def test_without_a_limit_a_publishing_job_waits_in_order(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(hours=1))
    [waiting] = await queued(world, 1)
    publishing = await world.add_job(queued_at=later(9), retry_from=RetryFrom.PUBLISH)
    async with slot_host.poll():
        await slot_host.ask(publishing, needs_claude=False)
        await eventually(lambda: slot_host.capacity._waiting == 1)
        await slot_host.ask(waiting)
        await slot_host.until_held(waiting, publishing)
    assert slot_host.leases.taken == [waiting.id, publishing.id]


async def test_a_publishing_job_waits_for_a_free_slot(world: World) -> None:
    held = Credential(world.store, CREDENTIAL)
    await held.hold(utc_now() + timedelta(hours=1))
    capacity = HostSlotSupplier(1)
    here = admission.SlotQueue(world.store, capacity, held)
    job = await world.add_job(retry_from=RetryFrom.PUBLISH)
    capacity.take_slot()
    assert not await here._may_start(job.id, needs_claude=False)
    capacity.give_slot_back()
    assert await here._may_start(job.id, needs_claude=False)


async def test_held_jobs_do_not_block_a_host_permanently(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs with a permit release it after a time and ask again."""
    monkeypatch.setattr(admission, "USAGE_LIMIT_TIMEOUT", timedelta(milliseconds=200))
    await Credential(world.store, CREDENTIAL).hold(utc_now() + timedelta(hours=1))
    first, second = await queued(world, 2)
    publishing = await world.add_job(queued_at=later(9), retry_from=RetryFrom.PUBLISH)
    async with slot_host.poll():
        held = await slot_host.ask_in_order(first, second)
        await slot_host.ask(publishing, needs_claude=False)
        await slot_host.until_held(publishing)
        assert [await handle.result() for handle in held] == [Ended("lease_lost")] * 2


async def test_a_returned_job_waits_for_the_limit_on_its_host(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "USAGE_LIMIT_TIMEOUT", timedelta(0))
    await Credential(world.store, CREDENTIAL).hold(utc_now() + timedelta(seconds=1))
    [job] = await queued(world, 1)
    async with slot_host.poll():
        await slot_host.ask(job, returning=True)
        await slot_host.until_held(job)


@pytest.mark.parametrize("situation", ["nothing left", "finished here"])
async def test_a_job_that_claude_has_finished_ignores_the_limit(
    world: World, slot_host: SlotHost, situation: str
) -> None:
    await Credential(world.store, CREDENTIAL).hold(utc_now() + timedelta(hours=1))
    [job] = await queued(world, 1)
    async with slot_host.poll():
        if situation == "finished here":
            await slot_host.ask(job, host_claude_finished_on=slot_host.host_id)
        else:
            await slot_host.ask(job, needs_claude=False)
        await slot_host.until_held(job)


async def test_a_job_that_claude_finished_on_another_host_waits_for_the_limit(
    world: World, slot_host: SlotHost
) -> None:
    until = utc_now() + timedelta(seconds=1)
    await Credential(world.store, CREDENTIAL).hold(until)
    [job] = await queued(world, 1)
    async with slot_host.poll():
        await slot_host.ask(job, host_claude_finished_on="mill-9")
        await slot_host.until_held(job)
        assert utc_now() >= until


async def test_jobs_keep_their_order_during_a_limit(
    temporal: TemporalClient, world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_holds, "REFRESH_INTERVAL", timedelta(milliseconds=50))
    await Credential(world.store, CREDENTIAL).hold(utc_now() + timedelta(seconds=1.5))
    urgent, *others = await queued(world, 5)
    async with slot_host.poll():
        for job in (*others, urgent):
            await slot_host.ask(job)
        await slot_host.until_held(urgent, others[0])
        await slot_host.release(urgent)
        await slot_host.until_held(others[0], others[1])
    assert slot_host.leases.taken == [urgent.id, others[0].id, others[1].id]
