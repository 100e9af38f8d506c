"""Progress is recorded only under the lease of the job."""

from __future__ import annotations

import pytest

from domain.errors import LeaseLost
from domain.jobs import JobStatus, Phase
from domain.messages import MessageType
from host.job_progress import Progress
from host.slots.leases import LeaseKey
from tests.unit.store.samples import World

RUNNING = JobStatus.RUNNING


async def test_enter_sets_the_phase_and_other_columns(world: World) -> None:
    job = await world.add_job(status=RUNNING, phase=Phase.PREPARING, lease=2)
    await Progress(world.store).enter(LeaseKey(job.id, 2), Phase.WORKING, pid=77)
    row = await world.read(job)
    assert (row.phase, row.pid, row.lease) == (Phase.WORKING, 77, 2)


@pytest.mark.parametrize("number", [1, 3])
async def test_an_update_under_another_lease_changes_nothing(world: World, number: int) -> None:
    job = await world.add_job(status=RUNNING, phase=Phase.PREPARING, lease=2)
    with pytest.raises(LeaseLost):
        await Progress(world.store).enter(LeaseKey(job.id, number), Phase.WORKING)
    assert (await world.read(job)).phase is Phase.PREPARING


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {RUNNING}))
async def test_a_job_that_is_not_running_is_unchanged(world: World, status: JobStatus) -> None:
    job = await world.add_job(status=status, phase=None, lease=2)
    with pytest.raises(LeaseLost):
        await Progress(world.store).update(LeaseKey(job.id, 2), {"files_changed": 3})
    assert (await world.read(job)).files_changed is None


async def test_a_system_message_is_added_once(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    progress = Progress(world.store)
    for target in (job, other, job):
        for text, once in (("Preparing.", ("prepare", 1)), ("Preparing.", ("prepare", 2))):
            await progress.notify(target.id, text, once=once)
    for target in (job, other):
        lines = await world.transcript(target)
        assert [line.content for line in lines] == ["Preparing.", "Preparing."]
        assert {line.type for line in lines} == {MessageType.SYSTEM}


async def test_a_system_message_under_a_lost_lease_is_refused(world: World) -> None:
    job = await world.add_job(status=RUNNING, lease=2)
    with pytest.raises(LeaseLost):
        await Progress(world.store).notify(job.id, "Late.", once="late", lease=1)
    assert await world.transcript(job) == []
