"""The grant of a slot, and every way in which it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import ActivityEnvironment

from activities.slots import HoldSlotInput, SlotGrant, StopWorkInput
from domain.errors import DependencyUnavailable, LeaseLost
from domain.jobs import LIVE, Job, JobStatus, Phase
from host.slots.leases import LeaseKey
from store.protocol import Guard
from tests.integration.activities.holders import AskForSlot, Ended, SlotHost
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import UNKNOWN_ID, World, later


@pytest.fixture
async def polling(slot_host: SlotHost) -> AsyncIterator[SlotHost]:
    async with slot_host.poll():
        yield slot_host


async def ended(handle: WorkflowHandle[AskForSlot, Ended]) -> Ended:
    return await asyncio.wait_for(handle.result(), 20)


async def held(host: SlotHost, job: Job, lease: int = 1) -> WorkflowHandle[AskForSlot, Ended]:
    """Start the workflow of a job, and wait until it has a slot."""
    handle = await host.ask(job, lease)
    await eventually(lambda: host.leases.find(LeaseKey(job.id, lease)) is not None)
    return handle


async def cancel_row(world: World, job: Job) -> None:
    await world.store.update_job(
        job.id, {"status": JobStatus.CANCELLED, "phase": None}, Guard(LIVE)
    )


async def test_a_grant_is_recorded_signalled_and_held_until_release(
    world: World, polling: SlotHost
) -> None:
    job = await world.add_job()
    handle = await held(polling, job)
    async with asyncio.timeout(20):
        while not await handle.query(AskForSlot.grants):
            pass
    assert await handle.query(AskForSlot.grants) == [
        SlotGrant(1, polling.host_id, polling.host_queue)
    ]
    row = await world.read(job)
    assert (row.status, row.phase, row.lease, row.host) == (
        JobStatus.RUNNING,
        Phase.PREPARING,
        1,
        polling.host_id,
    )
    assert row.started_at is not None
    await polling.release(job)
    await polling.release(job)
    assert await ended(handle) == Ended("released")
    assert polling.leases.job_ids == set()

    await hold_and_release(polling, job, lease=2)
    assert (await world.read(job)).started_at == row.started_at


async def hold_and_release(host: SlotHost, job: Job, lease: int) -> None:
    handle = await held(host, job, lease)
    await host.release(job, lease)
    assert await ended(handle) == Ended("released")


async def test_a_later_lease_of_the_same_job_ends_the_earlier_one(
    world: World, polling: SlotHost
) -> None:
    job = await world.add_job()
    first = await held(polling, job)
    work = asyncio.create_task(
        polling.leases.require(LeaseKey(job.id, 1)).run(asyncio.Event().wait())
    )
    second = await held(polling, job, lease=2)
    with pytest.raises(LeaseLost):
        await work
    assert await ended(first) == Ended("lease_lost")
    await polling.release(job, lease=1)
    assert polling.leases.find(LeaseKey(job.id, 2)) is not None
    await polling.release(job, lease=2)
    assert await ended(second) == Ended("released")


async def test_an_old_lease_gets_the_current_number(world: World, polling: SlotHost) -> None:
    job = await world.add_job(lease=3)
    for lease in (2, 3):
        assert await ended(await polling.ask(job, lease)) == Ended("lease_lost", present=3)
    await hold_and_release(polling, job, lease=4)


async def test_a_job_that_has_ended_gets_no_slot(world: World, polling: SlotHost) -> None:
    job = await world.add_job()
    await cancel_row(world, job)
    unknown = replace(job, id=UNKNOWN_ID)
    assert await ended(await polling.ask(job)) == Ended("job_ended")
    assert await ended(await polling.ask(unknown)) == Ended("job_ended")
    assert (await world.read(job)).lease == 0


async def test_cancelling_the_holder_stops_the_work_of_the_lease(
    world: World, polling: SlotHost
) -> None:
    job = await world.add_job()
    handle = await held(polling, job)
    lease = polling.leases.require(LeaseKey(job.id, 1))
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    running = asyncio.create_task(lease.run(work()))
    await asyncio.sleep(0)
    await handle.cancel()
    assert await ended(handle) == Ended("CancelledError")
    assert cleaned.is_set()
    with pytest.raises(LeaseLost):
        await running
    assert polling.leases.job_ids == set()
    assert not polling.capacity.is_full


async def test_stop_work_leaves_the_slot_with_the_job(world: World, polling: SlotHost) -> None:
    job = await world.add_job()
    handle = await held(polling, job)
    key = LeaseKey(job.id, 1)
    running = asyncio.create_task(polling.leases.require(key).run(asyncio.Event().wait()))
    await asyncio.sleep(0)
    await polling.activities.stop_work(StopWorkInput(LeaseKey(job.id, 2)))
    assert not running.done()
    await polling.activities.stop_work(StopWorkInput(key))
    await polling.activities.stop_work(StopWorkInput(key))
    with pytest.raises(LeaseLost):
        await running
    assert polling.leases.find(key) is not None
    await polling.release(job)
    assert await ended(handle) == Ended("released")


async def test_a_holder_cancelled_while_waiting_delays_no_other_job(
    world: World, polling: SlotHost
) -> None:
    first, second, third, fourth = [
        await world.add_job(queued_at=later(number)) for number in range(4)
    ]
    await polling.ask_in_order(first, second)
    await polling.until_held(first, second)
    waiting, *_ = await polling.ask_in_order(fourth, third)
    await polling.release(first)
    await polling.until_held(second, third)
    await cancel_row(world, fourth)
    await waiting.cancel()
    assert await ended(waiting) == Ended("CancelledError")
    fifth = await world.add_job(queued_at=later(9))
    await polling.ask_in_order(fifth)
    await polling.release(second)
    await polling.until_held(third, fifth)


async def test_a_draining_host_finishes_its_jobs_and_takes_no_more(
    world: World, slot_host: SlotHost
) -> None:
    first, second, third, fourth = [
        await world.add_job(queued_at=later(number)) for number in range(4)
    ]
    async with slot_host.poll(grace=timedelta(seconds=30)) as worker:
        handles = await slot_host.ask_in_order(first, second)
        await slot_host.until_held(first, second)
        waiting, third_handle = await slot_host.ask_in_order(fourth, third)
        await slot_host.release(first)
        await slot_host.until_held(second, third)
        draining = asyncio.create_task(worker.shutdown())
        assert await ended(waiting) == Ended("lease_lost")
        assert slot_host.leases.job_ids == {second.id, third.id}
        await slot_host.release(second)
        await slot_host.release(third)
        assert [await ended(handle) for handle in (handles[1], third_handle)] == [
            Ended("released"),
            Ended("released"),
        ]
        await draining
    assert (await world.read(fourth)).status is JobStatus.QUEUED


async def test_an_immediate_shutdown_stops_the_work(world: World, slot_host: SlotHost) -> None:
    job = await world.add_job()
    async with slot_host.poll():
        handle = await held(slot_host, job)
        lease = slot_host.leases.require(LeaseKey(job.id, 1))
        running = asyncio.create_task(lease.run(asyncio.Event().wait()))
    assert await ended(handle) == Ended("WorkerShutdown")
    with pytest.raises(LeaseLost):
        await running


async def test_a_grant_that_cannot_be_signalled_is_given_up(
    world: World, slot_host: SlotHost
) -> None:
    job = await world.add_job()
    with pytest.raises(DependencyUnavailable, match="grant"):
        await ActivityEnvironment().run(
            slot_host.activities.hold_slot,
            HoldSlotInput(LeaseKey(job.id, 1), needs_claude=True, host_claude_finished_on=None),
        )
    assert slot_host.leases.job_ids == set()
    assert not slot_host.capacity.is_full
