from __future__ import annotations

import random

from domain.job_details import Queue, QueueEntry
from domain.jobs import HOLDS_SLOT, LIVE, Job, JobStatus, Phase
from store.protocol import Guard
from tests.unit.store.samples import NO_IDS, START, World, later, new_id, state_of

EMPTY = Queue([], [], [], 0, 0, 0)
NEEDS_NO_SLOT = {Phase.WAITING_FOR_USER, Phase.WAITING_FOR_LIMIT}


def place(job: Job) -> tuple[object, ...]:
    return job.priority, job.queued_at, job.id


def waits(job: Job) -> bool:
    return job.status in LIVE and job.phase is Phase.WAITING_FOR_SLOT


def entry(job: Job) -> QueueEntry:
    assert job.phase is not None
    return QueueEntry(
        job.id,
        job.title,
        job.client_id,
        job.branch_name,
        job.job_type,
        job.phase,
        job.created_at,
        job.queued_at,
        job.started_at,
    )


async def some_jobs(world: World, count: int = 80) -> list[Job]:
    draw = random.Random(7)
    return [
        await world.add_job(
            status=draw.choice(
                [*JobStatus, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.RUNNING]
            ),
            phase=draw.choice([*Phase, Phase.WAITING_FOR_SLOT, None]),
            priority=draw.choice([1, 3, 5]),
            queued_at=later(draw.randrange(10)),
            started_at=draw.choice([None, later(draw.randrange(10))]),
        )
        for _ in range(count)
    ]


async def test_an_empty_queue(world: World) -> None:
    assert await world.store.queue(100) == EMPTY
    assert await world.store.first_in_queue([]) is None


async def test_positions_are_by_priority_then_time_then_id(world: World) -> None:
    jobs = await some_jobs(world)
    waiting = sorted(filter(waits, jobs), key=place)
    assert len(waiting) > 10
    for job in jobs:
        expected = waiting.index(job) + 1 if job in waiting else 0
        assert await world.store.queue_position(job.id) == expected


async def test_a_conversation_that_waits_for_its_next_turn_has_a_position(world: World) -> None:
    job = await world.add_job(status=JobStatus.RUNNING, phase=Phase.WAITING_FOR_USER)
    first = await world.add_job(queued_at=later(5))
    assert await world.store.queue_position(job.id) == 0
    again = {"phase": Phase.WAITING_FOR_SLOT, "queued_at": later(6)}
    assert await world.store.update_job(job.id, again, Guard(LIVE))  # type: ignore[arg-type]
    assert await world.store.queue_position(first.id) == 1
    assert await world.store.queue_position(job.id) == 2


async def test_first_in_queue_skips_excluded_jobs(world: World) -> None:
    waiting = sorted(filter(waits, await some_jobs(world)), key=place)
    for count in (0, 1, 5):
        exclude = [job.id for job in waiting[:count]]
        assert await world.store.first_in_queue(exclude) == waiting[count].id
    assert await world.store.first_in_queue({job.id for job in waiting}) is None
    assert await world.store.first_in_queue({waiting[1].id}) == waiting[0].id


async def test_excluded_ids_may_be_any_text_and_many(world: World) -> None:
    job = await world.add_job()
    assert (
        await world.store.first_in_queue([*NO_IDS[:-1], *(new_id() for _ in range(5000))]) == job.id
    )


async def test_the_queue_lists_every_live_job_by_kind(world: World) -> None:
    jobs = await some_jobs(world)
    queue = await world.store.queue(100)
    running = [job for job in jobs if job.status is JobStatus.RUNNING and job.phase in HOLDS_SLOT]
    waiting = [job for job in jobs if job.status in LIVE and job.phase in NEEDS_NO_SLOT]
    queued = [job for job in jobs if waits(job)]
    assert queue.queued == [entry(job) for job in sorted(queued, key=place)]
    assert {found.id: found for found in queue.running} == {job.id: entry(job) for job in running}
    assert {found.id: found for found in queue.waiting} == {job.id: entry(job) for job in waiting}
    assert (queue.running_total, queue.waiting_total, queue.queued_total) == (
        len(running),
        len(waiting),
        len(queued),
    )


async def test_running_jobs_are_sorted_by_their_first_grant(world: World) -> None:
    for seconds in (5, 2, 9):
        await world.add_job(
            status=JobStatus.RUNNING, phase=Phase.WORKING, started_at=later(seconds)
        )
    found = (await world.store.queue(2)).running
    assert [running.started_at for running in found] == [later(2), later(5)]


async def test_the_limit_applies_to_each_kind_but_not_to_the_totals(world: World) -> None:
    for phase in (Phase.WORKING, Phase.WAITING_FOR_LIMIT, Phase.WAITING_FOR_SLOT):
        for _ in range(4):
            await world.add_job(status=JobStatus.RUNNING, phase=phase)
    queue = await world.store.queue(3)
    assert [len(kind) for kind in (queue.running, queue.waiting, queue.queued)] == [3, 3, 3]
    assert (queue.running_total, queue.waiting_total, queue.queued_total) == (4, 4, 4)
    assert await world.store.queue(0) == Queue([], [], [], 4, 4, 4)


async def test_a_cancelled_job_that_cleans_up_is_not_in_the_queue(world: World) -> None:
    await world.add_job(status=JobStatus.CANCELLED, phase=Phase.CLEANING_UP)
    await world.add_job(status=JobStatus.COMPLETED, phase=None)
    assert await world.store.queue(100) == EMPTY


async def test_jobs_to_reconcile_are_stale_and_live_or_cleaning_up(world: World) -> None:
    stale = [
        await world.add_job(status=status, phase=phase, updated_at=later(-0.000001))
        for status, phase in (
            (JobStatus.QUEUED, Phase.WAITING_FOR_SLOT),
            (JobStatus.RUNNING, Phase.WORKING),
            (JobStatus.RUNNING, None),
            (JobStatus.CANCELLED, Phase.CLEANING_UP),
            (JobStatus.FAILED, Phase.CLEANING_UP),
        )
    ]
    await world.add_job(updated_at=START)
    await world.add_job(status=JobStatus.CANCELLED, phase=Phase.CLEANING_UP, updated_at=START)
    await world.add_job(status=JobStatus.FAILED, phase=None, updated_at=later(-5))
    expected = [state_of(job) for job in sorted(stale, key=lambda job: job.id)]
    assert await world.store.jobs_to_reconcile(START, "", 100) == expected
    assert await world.store.jobs_to_reconcile(START, "", 2) == expected[:2]
    assert await world.store.jobs_to_reconcile(START, expected[1].id, 2) == expected[2:4]
    assert await world.store.jobs_to_reconcile(START, expected[-1].id, 2) == []
    assert await world.store.jobs_to_reconcile(later(-60), "", 100) == []


async def test_an_updated_job_is_not_stale(world: World) -> None:
    job = await world.add_job(updated_at=later(-5))
    assert await world.store.jobs_to_reconcile(START, "", 10) == [state_of(job)]
    assert await world.store.update_job(job.id, {}, Guard(LIVE))
    assert await world.store.jobs_to_reconcile(START, "", 10) == []
