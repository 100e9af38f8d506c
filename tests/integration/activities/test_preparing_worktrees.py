"""Preparing a job's worktree, and fetching mirrors, as activities."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from activities.workspaces import FetchMirrorInput, FetchMirrorResult, PrepareInput, PrepareResult
from domain.errors import JobFailure, LeaseLost, NotFound
from domain.failures import FailureCode
from domain.jobs import JobStatus, JobType
from fakes.github.server import FakeGitHub
from host.slots.leases import LeaseKey
from store.protocol import Guard
from tests.integration.activities.machine import NAME, OWNER, Machine
from tests.unit.store.samples import UNKNOWN_ID, World, a_repository


async def test_a_new_branch_starts_at_the_default_branch(
    machine: Machine, forge: FakeGitHub
) -> None:
    granted, worktree = await machine.prepared()
    tip = forge.branches(OWNER, NAME)["main"]
    row = await machine.world.read(granted.job)
    assert (row.base_sha, row.worktree_path) == (tip, str(worktree.path))
    assert (worktree.path / "src/app.py").read_text() == "print('hello')\n"
    assert await machine.said(granted.job) == ["Preparing acme/shop."]
    assert not worktree.continued


async def test_preparing_again_finds_the_worktree_as_it_was_left(
    machine: Machine, forge: FakeGitHub
) -> None:
    granted, worktree = await machine.prepared()
    (worktree.path / "new.py").write_text("half done")
    forge.commit(OWNER, NAME, "main", {"README.md": "# Moved on\n"}, "Move on")
    fetched = len(forge.requests)
    first = await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    await machine.world.store.update_job(
        granted.job.id, {"lease": 2}, _running_under(granted.key.number)
    )
    second = await machine.run(
        machine.workspaces.prepare, PrepareInput(machine.take(granted.job, 2))
    )
    assert first == second == PrepareResult(worktree.base_sha, continues_branch=False, existed=True)
    assert (worktree.path / "new.py").read_text() == "half done"
    assert len(forge.requests) == fetched
    assert await machine.said(granted.job) == ["Preparing acme/shop."] * 2


def _running_under(lease: int) -> Guard:
    return Guard(frozenset({JobStatus.RUNNING}), lease=lease)


async def test_an_existing_branch_is_continued(machine: Machine, forge: FakeGitHub) -> None:
    tip = forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    granted = await machine.grant(branch_name="feature/old")
    prepared = await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    assert prepared == PrepareResult(tip, continues_branch=True, existed=False)


async def test_a_task_reads_its_branch_or_the_default_one(
    machine: Machine, forge: FakeGitHub
) -> None:
    tip = forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    named = await machine.grant_task(branch_name="feature/old")
    unnamed = await machine.grant_task(branch_name="task-1")
    assert (await machine.prepare(named)).base_sha == tip
    assert (await machine.prepare(unnamed)).base_sha == forge.branches(OWNER, NAME)["main"]


async def test_a_task_goes_on_where_it_began_on_another_machine(
    machine: Machine, forge: FakeGitHub, tmp_path: Path
) -> None:
    granted = await machine.grant_task()
    began = (await machine.prepare(granted)).base_sha
    forge.commit(OWNER, NAME, "main", {"README.md": "# Moved on\n"}, "Move on")
    other = Machine(tmp_path / "other", machine.world, forge)
    other.take(granted.job, 1)
    assert (await other.prepare(granted)).base_sha == began


async def test_preparing_needs_the_lease(machine: Machine, forge: FakeGitHub) -> None:
    granted = await machine.grant()
    with pytest.raises(LeaseLost):
        await machine.run(machine.workspaces.prepare, PrepareInput(LeaseKey(granted.job.id, 2)))
    assert forge.requests == []


async def test_a_stopped_job_prepares_nothing(machine: Machine, forge: FakeGitHub) -> None:
    granted = await machine.grant()
    await machine.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    assert forge.requests == []


async def test_stopping_ends_a_fetch_that_hangs(machine: Machine, forge: FakeGitHub) -> None:
    granted = await machine.grant()
    forge.delay_next("git-upload-pack*", 30)
    preparing = asyncio.create_task(
        machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    )
    async with asyncio.timeout(10):
        while forge.pending_faults:  # noqa: ASYNC110 - the forge has no event to wait for
            await asyncio.sleep(0.01)
        await machine.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await preparing


async def test_a_lease_lost_meanwhile_is_noticed(machine: Machine) -> None:
    granted = await machine.grant()
    await machine.world.store.update_job(granted.job.id, {"lease": 2}, _running_under(1))
    with pytest.raises(LeaseLost):
        await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    assert (await machine.world.read(granted.job)).worktree_path is None


@pytest.mark.parametrize("job_type", JobType)
async def test_without_a_token_a_scratch_repository_asks_for_one(
    world: World, forge: FakeGitHub, tmp_path: Path, job_type: JobType
) -> None:
    machine = Machine(tmp_path / "machine", world, forge, token=None)
    granted = await machine.grant(job_type=job_type)
    with pytest.raises(JobFailure) as caught:
        await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    assert caught.value.code is FailureCode.GITHUB_TOKEN_MISSING


async def test_without_a_token_a_public_repository_can_be_read_and_not_worked_on(
    world: World, forge: FakeGitHub, tmp_path: Path
) -> None:
    forge.repository(OWNER, NAME).private = False
    machine = Machine(tmp_path / "machine", world, forge, token=None)
    assert (await machine.prepare(await machine.grant_task())).exists
    asked = len(forge.requests)
    code = await machine.grant()
    with pytest.raises(JobFailure) as caught:
        await machine.run(machine.workspaces.prepare, PrepareInput(code.key))
    assert caught.value.code is FailureCode.GITHUB_TOKEN_MISSING
    assert len(forge.requests) == asked


async def test_a_repository_that_is_not_there_is_the_jobs_failure(
    machine: Machine, forge: FakeGitHub
) -> None:
    await machine.world.store.add_repository(
        gone := a_repository(machine.world.client, repo_name="gone")
    )
    granted = await machine.grant(repository_id=gone.id)
    with pytest.raises(JobFailure) as caught:
        await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    assert caught.value.code is FailureCode.REPOSITORY_NOT_FOUND


async def test_fetching_a_mirror_says_where_it_is(machine: Machine) -> None:
    repository = machine.world.repository
    expected = FetchMirrorResult("acme/shop", True, str(machine.mirrors.path(OWNER, NAME)), None)
    for _ in range(2):
        assert (
            await machine.run(machine.workspaces.fetch_mirror, FetchMirrorInput(repository.id))
            == expected
        )
    assert machine.mirrors.path(OWNER, NAME).is_dir()


async def test_a_mirror_that_cannot_be_fetched_is_a_result(
    machine: Machine, world: World, forge: FakeGitHub, tmp_path: Path
) -> None:
    await world.store.add_repository(gone := a_repository(world.client, repo_name="gone"))
    result = await machine.run(machine.workspaces.fetch_mirror, FetchMirrorInput(gone.id))
    assert (result.repository, result.success, result.path) == ("acme/gone", False, None)
    assert FailureCode.REPOSITORY_NOT_FOUND.sentence in str(result.error)

    without = Machine(tmp_path / "without", world, forge, token=None)
    result = await without.run(
        without.workspaces.fetch_mirror, FetchMirrorInput(world.repository.id)
    )
    assert FailureCode.GITHUB_TOKEN_MISSING.sentence in str(result.error)

    with pytest.raises(NotFound):
        await machine.run(machine.workspaces.fetch_mirror, FetchMirrorInput(UNKNOWN_ID))
