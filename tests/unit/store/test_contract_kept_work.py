from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from domain.errors import InvalidRequest
from domain.job_details import KeptWork
from domain.messages import MAX_CONTENT_CHARACTERS, is_storable, sanitize_text
from tests.unit.store.samples import TEXTS, World, later, work_of


async def test_kept_work_is_read_as_it_was_written(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    work = work_of(job)
    await world.store.keep_work(replace(work, job_id=job.id.upper()))
    assert await world.store.kept_work(job.id) == work
    assert await world.store.kept_work(job.id.upper()) == work
    assert await world.store.kept_work(other.id) is None
    assert await world.read(job) == job


async def test_kept_work_replaces_the_previous_record(world: World) -> None:
    job = await world.add_job()
    await world.store.keep_work(work_of(job))
    newer = KeptWork(job.id, "c" * 40, "d" * 40, "mill-2", None, later(1))
    for _ in range(2):
        await world.store.keep_work(newer)
        assert await world.store.kept_work(job.id) == newer


async def test_the_time_of_kept_work_is_returned_in_utc(world: World) -> None:
    job, zone = await world.add_job(), timezone(timedelta(hours=-3))
    await world.store.keep_work(work_of(job, created_at=later(0.000001).astimezone(zone)))
    found = await world.store.kept_work(job.id)
    assert found is not None
    assert (found.created_at, found.created_at.utcoffset()) == (later(0.000001), timedelta(0))


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if is_storable(text)])
async def test_a_patch_is_stored_unchanged(world: World, text: str) -> None:
    job = await world.add_job()
    await world.store.keep_work(work_of(job, patch=text))
    assert await world.store.kept_work(job.id) == work_of(job, patch=text)


async def test_a_patch_of_megabytes_is_stored_completely(world: World) -> None:
    job, patch = await world.add_job(), "+日本語 and \U0001f4a9\n" * (MAX_CONTENT_CHARACTERS // 4)
    await world.store.keep_work(work_of(job, patch=patch))
    found = await world.store.kept_work(job.id)
    assert found is not None
    assert found.patch == patch


@pytest.mark.parametrize("text", ["nul \x00", "half \ud83d of a pair"])
async def test_a_patch_that_cannot_be_stored_unchanged_is_refused(world: World, text: str) -> None:
    job = await world.add_job()
    await world.store.keep_work(work_of(job))
    with pytest.raises(InvalidRequest, match="patch"):
        await world.store.keep_work(work_of(job, patch=text))
    assert await world.store.kept_work(job.id) == work_of(job)


async def test_other_text_of_kept_work_is_sanitized(world: World) -> None:
    job, text = await world.add_job(), "a\x00b"
    await world.store.keep_work(work_of(job, host=text))
    assert await world.store.kept_work(job.id) == work_of(job, host=sanitize_text(text))


async def test_old_work_is_deleted(world: World) -> None:
    jobs = [await world.add_job() for _ in range(3)]
    kept = [work_of(job, created_at=later(number)) for number, job in enumerate(jobs)]
    for work in kept:
        await world.store.keep_work(work)
    for _ in range(2):
        await world.store.forget_work(later(1), ())
        assert [await world.store.kept_work(job.id) for job in jobs] == [None, *kept[1:]]
    await world.store.forget_work(later(2.000001), ())
    assert [await world.store.kept_work(job.id) for job in jobs] == [None] * 3


async def test_old_work_of_excluded_jobs_is_kept(world: World) -> None:
    jobs = [await world.add_job() for _ in range(102)]
    for job in jobs:
        await world.store.keep_work(work_of(job))
    await world.store.forget_work(later(1), {jobs[0].id})
    kept = [job for job in jobs if await world.store.kept_work(job.id)]
    assert kept == jobs[:1]
