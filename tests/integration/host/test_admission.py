"""The order in which a host grants its slots, with a real Temporal server and store."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from domain.jobs import Job, JobStatus, Phase
from host.slots import admission
from host.slots.credential_holds import Credential
from host.slots.slot_supplier import HostSlotSupplier
from store.protocol import Guard
from tests.integration.activities.holders import CREDENTIAL, SlotHost
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World, later


async def queued(world: World, count: int) -> list[Job]:
    """Return jobs in the order in which they were queued."""
    return [await world.add_job(queued_at=later(number)) for number in range(count)]


async def test_jobs_get_slots_in_the_order_of_the_store(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(seconds=30))
    chance = random.Random(7)
    jobs = [
        await world.add_job(priority=chance.choice((1, 3, 3, 3, 5)), queued_at=later(number // 2))
        for number in range(20)
    ]
    in_order = [job.id for job in sorted(jobs, key=lambda j: (j.priority, j.queued_at, j.id))]
    async with slot_host.poll():
        await asyncio.gather(*map(slot_host.ask, chance.sample(jobs, len(jobs))))
        taken = slot_host.leases.taken
        for number, job_id in enumerate(in_order, 1):
            expected = min(number + 1, len(jobs))
            await eventually(lambda expected=expected: len(taken) >= expected)  # type: ignore[misc]
            await slot_host.release(next(job for job in jobs if job.id == job_id))

    assert slot_host.leases.taken == in_order
    assert slot_host.leases.most_at_once == 2


async def test_long_jobs_do_not_change_the_order(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While all slots are taken, no job counts as absent."""
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(milliseconds=300))
    first, second, third, fourth, fifth, sixth = await queued(world, 6)
    async with slot_host.poll():
        await slot_host.ask_in_order(first, second)
        await slot_host.until_held(first, second)
        await slot_host.ask_in_order(sixth, fourth, third, fifth)
        await slot_host.release(first)
        await slot_host.until_held(second, third)
        await asyncio.sleep(0.7)
        await slot_host.release(second)
        await slot_host.until_held(third, fourth)
        await slot_host.release(third)
        await slot_host.until_held(fourth, fifth)
        await slot_host.release(fourth)
        await slot_host.until_held(fifth, sixth)


async def test_an_urgent_job_overtakes_a_waiting_job(world: World, slot_host: SlotHost) -> None:
    first, second, third, fourth = await queued(world, 4)
    async with slot_host.poll():
        await slot_host.ask_in_order(first, second)
        await slot_host.until_held(first, second)
        await slot_host.ask_in_order(fourth, third)
        await slot_host.release(first)
        await slot_host.until_held(second, third)
        await asyncio.sleep(4 * admission.POLL_INTERVAL.total_seconds())
        urgent = await world.add_job(priority=1, queued_at=later(9))
        await slot_host.ask_in_order(urgent)
        await slot_host.release(second)
        await slot_host.until_held(third, urgent)


async def test_an_absent_job_delays_the_others_once(world: World, slot_host: SlotHost) -> None:
    missing, *jobs = await queued(world, 6)
    clock = asyncio.get_running_loop().time
    async with slot_host.poll():
        began = clock()
        await slot_host.ask_in_order(*reversed(jobs))
        await slot_host.until_held(*jobs[:2])
        waited = clock() - began
        began = clock()
        for job in jobs[:3]:
            await slot_host.release(job)
            await eventually(lambda: len(slot_host.leases.job_ids) == 2)
        waited_again = clock() - began
        await slot_host.ask_in_order(missing)
        await slot_host.release(jobs[3])
        await slot_host.until_held(jobs[4], missing)

    assert slot_host.leases.taken == [job.id for job in [*jobs, missing]]
    patience = admission.EARLIER_JOB_TIMEOUT.total_seconds()
    assert patience <= waited < patience + 2
    assert waited_again < patience


async def test_a_skipped_job_that_arrives_is_not_skipped_next_time(
    world: World, slot_host: SlotHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(milliseconds=200))
    late, early = await queued(world, 2)
    async with slot_host.poll():
        await slot_host.ask_in_order(early)
        await slot_host.until_held(early)
        await slot_host.ask_in_order(late)
        await slot_host.until_held(early, late)
        await slot_host.release(early)
        await slot_host.release(late)
        monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(seconds=30))
        again = Phase.WAITING_FOR_SLOT
        running = Guard(frozenset({JobStatus.RUNNING}))
        for number, job in enumerate((late, early)):
            changes = {"phase": again, "queued_at": later(100 + number)}
            assert await world.store.update_job(job.id, changes, running)  # type: ignore[arg-type]
        await slot_host.ask(early, lease=2)
        await eventually(lambda: slot_host.capacity._waiting == 1)
        await slot_host.ask(late, lease=2)
        await slot_host.until_held(early, late)

    assert slot_host.leases.taken[-2:] == [late.id, early.id]


async def test_a_job_is_skipped_for_a_limited_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(milliseconds=100))
    here = admission.SlotQueue(
        world.store, HostSlotSupplier(3), Credential(world.store, CREDENTIAL)
    )
    missing, waiting = await queued(world, 2)
    await ActivityEnvironment().run(here.take_slot, waiting.id)
    assert await here._first(waiting.id) == waiting.id
    monkeypatch.setattr(admission, "SKIP_FOR", timedelta(0))
    assert await here._first(waiting.id) == missing.id


async def test_a_job_skipped_while_it_waits_still_gets_a_slot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "EARLIER_JOB_TIMEOUT", timedelta(seconds=30))
    here = admission.SlotQueue(
        world.store, HostSlotSupplier(1), Credential(world.store, CREDENTIAL)
    )
    missing, waiting, _ = await queued(world, 3)
    taking = asyncio.create_task(ActivityEnvironment().run(here.take_slot, waiting.id))
    await asyncio.sleep(0.1)
    here._skipped |= {waiting.id: asyncio.get_running_loop().time()}
    await world.store.update_job(missing.id, {"phase": None}, Guard(frozenset(JobStatus)))
    await asyncio.wait_for(taking, 5)
    assert here._skipped == {}


async def test_cancelled_jobs_delay_no_other_job(world: World, slot_host: SlotHost) -> None:
    cancelled, waiting = await queued(world, 2)
    clock = asyncio.get_running_loop().time
    async with slot_host.poll():
        await slot_host.ask_in_order(waiting)
        await eventually(lambda: slot_host.capacity._waiting == 1)
        changes = {"status": JobStatus.CANCELLED, "phase": None}
        live = Guard(frozenset({JobStatus.QUEUED}))
        assert await world.store.update_job(cancelled.id, changes, live)  # type: ignore[arg-type]
        began = clock()
        await slot_host.until_held(waiting)

    assert clock() - began < admission.EARLIER_JOB_TIMEOUT.total_seconds()
