from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from domain.job_details import JobFilter, JobPage
from domain.jobs import FINAL, LIVE, Job, JobStatus, Phase
from store.protocol import Guard
from tests.unit.store.samples import RawTables, World, later, new_id

EVERYTHING = JobFilter()
STATUS_SETS = (
    None,
    LIVE,
    FINAL,
    frozenset(JobStatus),
    frozenset({JobStatus.FAILED}),
    frozenset({JobStatus.COMPLETED, JobStatus.QUEUED}),
    frozenset[JobStatus](),
)


def matches(job: Job, where: JobFilter) -> bool:
    return (
        (where.statuses is None or job.status in where.statuses)
        and where.client_id in (None, job.client_id)
        and where.feature_id in (None, job.feature_id)
    )


def newest_first(jobs: list[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)


async def page_of(world: World, where: JobFilter, limit: int, offset: int) -> tuple[list[Job], int]:
    page = await world.store.list_jobs(where, limit, offset)
    return [details.job for details in page.jobs], page.total


async def test_without_jobs_the_page_is_empty(world: World) -> None:
    assert await world.store.list_jobs(EVERYTHING, 50, 0) == JobPage([], 0)


async def test_a_page_has_the_same_details_as_a_single_read(world: World) -> None:
    jobs = [await world.add_job(created_at=later(number)) for number in range(3)]
    page = await world.store.list_jobs(EVERYTHING, 50, 0)
    assert page.jobs == [await world.details(job) for job in reversed(jobs)]


async def test_jobs_created_at_the_same_time_are_listed_by_id(world: World) -> None:
    jobs = [await world.add_job() for _ in range(10)]
    assert await page_of(world, EVERYTHING, 50, 0) == (newest_first(jobs), 10)


async def test_a_microsecond_determines_the_order(world: World) -> None:
    moments = (later(0), later(0.000001), later(0.1), later(1).replace(microsecond=0), later(1))
    jobs = [await world.add_job(created_at=moment) for moment in moments]
    assert await page_of(world, EVERYTHING, 50, 0) == (jobs[::-1], 5)


async def test_times_in_different_zones_are_sorted(world: World) -> None:
    zones = [timezone(timedelta(hours=hours)) for hours in (9, -7, 0, 2, -3)]
    jobs = [
        await world.add_job(created_at=later(number).astimezone(zone))
        for number, zone in enumerate(zones)
    ]
    assert await page_of(world, EVERYTHING, 50, 0) == (jobs[::-1], 5)


async def test_pages_have_no_gap_and_no_overlap(world: World) -> None:
    jobs = [await world.add_job(created_at=later(number // 3)) for number in range(23)]
    pages = [await page_of(world, EVERYTHING, 5, offset) for offset in range(0, 25, 5)]
    assert [job for found, _ in pages for job in found] == newest_first(jobs)
    assert {total for _, total in pages} == {23}


@pytest.mark.parametrize(
    ("limit", "offset", "count"),
    [
        (0, 0, 0),
        (50, 3, 0),
        (50, 4, 0),
        (50, 10**6, 0),
        (2**80, 2**80, 0),
        (2**80, 0, 3),
        (-1, 0, 0),
    ],
)
async def test_the_total_does_not_depend_on_the_page(
    world: World, limit: int, offset: int, count: int
) -> None:
    for _ in range(3):
        await world.add_job()
    for where in (EVERYTHING, JobFilter(LIVE), JobFilter(client_id=world.client.id)):
        found, total = await page_of(world, where, limit, offset)
        assert (len(found), total) == (count, 3)


async def test_every_filter_lists_the_matching_jobs(world: World, tables: RawTables) -> None:
    worlds = [world, await world.other()]
    features = [new_id(), new_id(), None]
    rows = [
        {"id": feature, "client_id": world.client.id, "title": "F"}
        for feature in features
        if feature
    ]
    await tables.insert("features", rows)
    draw = random.Random(20260301)
    jobs = [
        await draw.choice(worlds).add_job(
            status=draw.choice(list(JobStatus)),
            feature_id=draw.choice(features),
            created_at=later(draw.randrange(20)),
        )
        for _ in range(80)
    ]
    clients = (None, world.client.id, worlds[1].client.id, new_id())
    for statuses, client, feature in itertools.product(STATUS_SETS, clients, (*features, new_id())):
        where = JobFilter(statuses, client, feature)
        expected = newest_first([job for job in jobs if matches(job, where)])
        assert await page_of(world, where, 100, 0) == (expected, len(expected)), where
        assert await page_of(world, where, 3, 2) == (expected[2:5], len(expected)), where


async def test_totals_follow_every_change_of_status(world: World) -> None:
    job = await world.add_job()
    await world.add_job()
    anyhow = Guard(frozenset(JobStatus))
    for status in JobStatus:
        await world.store.update_job(job.id, {"status": status, "phase": Phase.WORKING}, anyhow)
        await world.store.update_job(job.id, {"status": status, "phase": None}, anyhow)
        for wanted in JobStatus:
            expected = (wanted is status) + (wanted is JobStatus.QUEUED)
            for client in (None, world.client.id):
                where = JobFilter(frozenset({wanted}), client)
                found, total = await page_of(world, where, 50, 0)
                assert len(found) == total == expected
        assert (await world.store.list_jobs(EVERYTHING, 50, 0)).total == 2


async def test_a_refused_or_repeated_job_is_not_counted(world: World) -> None:
    job = await world.add_job()
    await world.store.create_job(job)
    with pytest.raises(Exception, match="branch"):
        await world.add_job(branch_name=job.branch_name)
    assert (await world.store.list_jobs(EVERYTHING, 50, 0)).total == 1


async def test_a_hundred_thousand_jobs_are_paged_exactly(world: World, tables: RawTables) -> None:
    count, size = 100_000, 1000
    moments = [
        datetime.fromtimestamp(number // 7, UTC).isoformat(timespec="microseconds")
        for number in range(count)
    ]
    rows = [
        {
            "id": new_id(),
            "client_id": world.client.id,
            "prompt": "p",
            "branch_name": "b",
            "status": "failed" if number % 4 else "completed",
            "created_at": moment,
            "queued_at": moment,
            "updated_at": moment,
        }
        for number, moment in enumerate(moments)
    ]
    await tables.insert("agent_jobs", rows)
    expected = [
        row["id"] for row in sorted(rows, key=lambda row: (row["created_at"], row["id"]))[::-1]
    ]
    for offset in (0, size, 50_000, count - size, count - 1, count):
        found, total = await page_of(world, EVERYTHING, size, offset)
        assert total == count
        assert [job.id for job in found] == expected[offset : offset + size]
    failed = JobFilter(frozenset({JobStatus.FAILED}), world.client.id)
    found, total = await page_of(world, failed, size, 74_990)
    assert (len(found), total) == (10, 75_000)
