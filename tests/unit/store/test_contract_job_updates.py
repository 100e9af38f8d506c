from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from domain.errors import Conflict, InvalidRequest
from domain.failures import FailureCode, TimeLimit
from domain.job_details import PullRequestRecord
from domain.jobs import FINAL, LIVE, Job, JobStatus, JobType, Outcome, Phase, Usage
from store.protocol import Guard, JobChanges, Store
from tests.unit.store.samples import World, later, new_id

ANY = Guard(frozenset(JobStatus))

EVERY_CHANGE: JobChanges = {
    "status": JobStatus.FAILED,
    "phase": Phase.CLEANING_UP,
    "queued_at": later(1),
    "started_at": later(2),
    "completed_at": later(3),
    "lease": 4,
    "attempt": 5,
    "host": "mill-1",
    "worktree_path": "/data/worktrees/1",
    "pid": 6,
    "session_id": "session-1",
    "model": "opus",
    "base_sha": "a" * 40,
    "head_sha": "b" * 40,
    "exit_code": 7,
    "outcome": Outcome.NO_CHANGES,
    "failure_code": FailureCode.TIMED_OUT,
    "clock": TimeLimit.TURN,
    "resumes_at": later(4),
    "error": "too late",
    "result": "nothing",
    "usage": Usage(1, 2.5, 3, 4, 5, 6),
    "cost_is_estimate": True,
    "claude_seconds": 8.5,
    "pr_url": "https://github.com/acme/shop/pull/9",
    "pr_number": 9,
    "files_changed": 10,
}
NULLABLE = (
    "phase completed_at host worktree_path pid session_id model base_sha head_sha exit_code "
    "outcome failure_code clock resumes_at error result pr_url pr_number files_changed"
).split()


async def test_an_update_sets_its_columns_and_updated_at(world: World) -> None:
    job = await world.add_job()
    before = datetime.now(UTC)
    assert await world.store.update_job(job.id, {"host": "mill-1"}, ANY)
    found = await world.read(job)
    assert before <= found.updated_at <= datetime.now(UTC)
    assert found == replace(job, host="mill-1", updated_at=found.updated_at)


async def test_every_column_can_be_set_and_cleared(world: World) -> None:
    job = await world.add_job()
    assert await world.store.update_job(job.id, EVERY_CHANGE, ANY)
    found = await world.read(job)
    expected = replace(job, **cast(dict[str, Any], EVERY_CHANGE), updated_at=found.updated_at)
    assert found == expected
    cleared = dict.fromkeys(NULLABLE)
    assert await world.store.update_job(job.id, cast(JobChanges, cleared), ANY)
    found = await world.read(job)
    assert found == replace(expected, **cast(dict[str, Any], cleared), updated_at=found.updated_at)


async def test_an_empty_update_sets_updated_at(world: World) -> None:
    job = await world.add_job()
    assert await world.store.update_job(job.id, {}, ANY)
    found = await world.read(job)
    assert found.updated_at > job.updated_at
    assert found == replace(job, updated_at=found.updated_at)


async def test_an_update_changes_one_job(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    assert await world.store.update_job(job.id, {"host": "mill-1"}, ANY)
    assert await world.read(other) == other


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        (Guard(LIVE), True),
        (Guard(frozenset({JobStatus.RUNNING})), True),
        (Guard(frozenset({JobStatus.QUEUED})), False),
        (Guard(FINAL), False),
        (Guard(frozenset()), False),
        (Guard(LIVE, lease=3), True),
        (Guard(LIVE, lease=2), False),
        (Guard(LIVE, lease=4), False),
        (Guard(LIVE, lease=0), False),
        (Guard(LIVE, lease_below=4), True),
        (Guard(LIVE, lease_below=3), False),
        (Guard(LIVE, lease_below=0), False),
        (Guard(LIVE, lease=3, lease_below=4), True),
        (Guard(LIVE, lease=3, lease_below=3), False),
        (Guard(FINAL, lease=3), False),
    ],
)
async def test_an_update_is_made_if_its_guard_is_true(
    world: World, guard: Guard, holds: bool
) -> None:
    job = await world.add_job(status=JobStatus.RUNNING, phase=Phase.WORKING, lease=3)
    assert await world.store.update_job(job.id, {"host": "mill-1"}, guard) is holds
    found = await world.read(job)
    assert found.host == ("mill-1" if holds else None)
    assert (found.updated_at > job.updated_at) is holds


async def test_the_second_of_two_equal_grants_is_refused(world: World) -> None:
    job = await world.add_job()
    grant: JobChanges = {"status": JobStatus.RUNNING, "phase": Phase.PREPARING, "lease": 1}
    assert await world.store.update_job(job.id, grant, Guard(LIVE, lease_below=1))
    assert not await world.store.update_job(job.id, grant, Guard(LIVE, lease_below=1))


async def test_an_unknown_column_is_refused(world: World) -> None:
    job = await world.add_job()
    wrong = cast(JobChanges, {"host = 'x' --": "y"})
    with pytest.raises(KeyError):
        await world.store.update_job(job.id, wrong, ANY)


async def test_eight_concurrent_claimants_of_forty_jobs_share_none(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    jobs = [await world.add_job() for _ in range(40)]
    stores = [world.store, await connect()]

    async def claim(number: int) -> list[str]:
        won = []
        for job in jobs:
            grant: JobChanges = {
                "status": JobStatus.RUNNING,
                "phase": Phase.PREPARING,
                "host": f"mill-{number}",
            }
            queued = Guard(frozenset({JobStatus.QUEUED}))
            if await stores[number % 2].update_job(job.id, grant, queued):
                won.append(job.id)
        return won

    claims = await asyncio.gather(*(claim(number) for number in range(8)))
    assert sorted(job_id for won in claims for job_id in won) == sorted(job.id for job in jobs)
    for number, won in enumerate(claims):
        for job_id in won:
            details = await world.store.get_job(job_id)
            assert details is not None
            assert details.job.host == f"mill-{number}"


async def test_a_job_cannot_become_live_again_on_a_held_branch(world: World) -> None:
    ended = await world.add_job(branch_name="feat/x", status=JobStatus.FAILED, phase=None)
    await world.add_job(branch_name="feat/x")
    with pytest.raises(Conflict):
        await world.store.update_job(ended.id, {"status": JobStatus.QUEUED}, ANY)
    assert await world.read(ended) == ended


async def test_ending_a_job_releases_its_branch(world: World) -> None:
    job = await world.add_job(branch_name="feat/x")
    ended: JobChanges = {"status": JobStatus.CANCELLED, "phase": None}
    assert await world.store.update_job(job.id, ended, Guard(LIVE))
    await world.add_job(branch_name="feat/x")


async def test_an_update_may_refer_only_to_existing_rows(world: World) -> None:
    job = await world.add_job()
    record = PullRequestRecord(
        new_id(), new_id(), world.repository.id, None, "feat/x", "https://x", 1, "T", "https://y"
    )
    changes: JobChanges = {
        "code_branch_id": record.branch_id,
        "code_pull_request_id": record.pull_request_id,
    }
    with pytest.raises(InvalidRequest, match="code_branch_id"):
        await world.store.update_job(job.id, changes, ANY)
    assert await world.read(job) == job
    await world.store.record_pull_request(record)
    assert await world.store.update_job(job.id, changes, ANY)
    found = await world.read(job)
    assert found.code_branch_id == record.branch_id
    assert found.code_pull_request_id == record.pull_request_id


async def add_usage(world: World, job: Job, usage: Usage, report_id: str | None = None) -> Job:
    await world.store.add_usage(job.id, report_id or new_id(), usage, 1.5)
    return await world.read(job)


async def test_usage_is_summed(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    found = await add_usage(world, job, Usage(1, 0.25, 10, 20, 30, 40))
    assert (found.usage, found.claude_seconds) == (Usage(1, 0.25, 10, 20, 30, 40), 1.5)
    assert found.updated_at > job.updated_at
    found = await add_usage(world, job, Usage(2, 0.5, 1, 2, 3, 4))
    assert (found.usage, found.claude_seconds) == (Usage(3, 0.75, 11, 22, 33, 44), 3.0)
    assert await world.read(other) == other


async def test_a_repeated_usage_report_counts_once(world: World) -> None:
    job, report_id = await world.add_job(), new_id()
    first = await add_usage(world, job, Usage(1, 0.25, 10), report_id)
    assert await add_usage(world, job, Usage(1, 0.25, 10), report_id) == first
    assert await add_usage(world, job, Usage(9, 9.0, 9), report_id.upper()) == first


async def test_an_unknown_cost_is_not_zero(world: World) -> None:
    job = await world.add_job()
    assert (await add_usage(world, job, Usage(1, None, 10))).usage == Usage(1, None, 10)
    assert (await add_usage(world, job, Usage(1, 0.5, 10))).usage == Usage(2, 0.5, 20)
    assert (await add_usage(world, job, Usage(1, None, 10))).usage == Usage(3, 0.5, 30)
    assert (await add_usage(world, job, Usage(1, 0.0, 10))).usage == Usage(4, 0.5, 40)


async def test_concurrent_usage_reports_count_once_each(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    job = await world.add_job(job_type=JobType.TASK)
    stores = [world.store, await connect()]
    reports = [new_id() for _ in range(10)]
    await asyncio.gather(
        *(
            store.add_usage(job.id, report, Usage(1, 0.5), 2.0)
            for store in stores
            for report in reports
        )
    )
    found = await world.read(job)
    assert (found.usage, found.claude_seconds) == (Usage(10, 5.0), 20.0)
