"""The activities that prepare worktrees and fetch mirrors."""

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
from tests.integration.activities.worker_host import NAME, OWNER, WorkerHost
from tests.unit.store.samples import UNKNOWN_ID, World, a_repository


async def test_a_new_branch_starts_at_the_default_branch(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    granted, worktree = await host.prepared()
    tip = forge.branches(OWNER, NAME)["main"]
    row = await host.world.read(granted.job)
    assert (row.base_sha, row.worktree_path) == (tip, str(worktree.path))
    assert (worktree.path / "src/app.py").read_text() == "print('hello')\n"
    assert await host.messages(granted.job) == ["Preparing acme/shop."]
    assert not worktree.continued


async def test_preparing_again_keeps_the_worktree(host: WorkerHost, forge: FakeGitHub) -> None:
    granted, worktree = await host.prepared()
    (worktree.path / "new.py").write_text("half done")
    forge.commit(OWNER, NAME, "main", {"README.md": "# Moved on\n"}, "Move on")
    fetched = len(forge.requests)
    first = await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    await host.world.store.update_job(
        granted.job.id, {"lease": 2}, _running_under(granted.key.number)
    )
    second = await host.run(host.workspaces.prepare, PrepareInput(host.take(granted.job, 2)))
    assert first == second == PrepareResult(worktree.base_sha, continues_branch=False, existed=True)
    assert (worktree.path / "new.py").read_text() == "half done"
    assert len(forge.requests) == fetched
    assert await host.messages(granted.job) == ["Preparing acme/shop."] * 2


def _running_under(lease: int) -> Guard:
    return Guard(frozenset({JobStatus.RUNNING}), lease=lease)


async def test_a_job_continues_an_existing_branch(host: WorkerHost, forge: FakeGitHub) -> None:
    tip = forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    granted = await host.grant(branch_name="feature/old")
    prepared = await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    assert prepared == PrepareResult(tip, continues_branch=True, existed=False)


async def test_a_task_reads_its_branch_or_the_default_one(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    tip = forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    named = await host.grant_task(branch_name="feature/old")
    unnamed = await host.grant_task(branch_name="task-1")
    assert (await host.prepare(named)).base_sha == tip
    assert (await host.prepare(unnamed)).base_sha == forge.branches(OWNER, NAME)["main"]


async def test_a_task_uses_the_same_commit_on_another_host(
    host: WorkerHost, forge: FakeGitHub, tmp_path: Path
) -> None:
    granted = await host.grant_task()
    began = (await host.prepare(granted)).base_sha
    forge.commit(OWNER, NAME, "main", {"README.md": "# Moved on\n"}, "Move on")
    other = WorkerHost(tmp_path / "other", host.world, forge)
    other.take(granted.job, 1)
    assert (await other.prepare(granted)).base_sha == began


async def test_prepare_needs_the_lease(host: WorkerHost, forge: FakeGitHub) -> None:
    granted = await host.grant()
    with pytest.raises(LeaseLost):
        await host.run(host.workspaces.prepare, PrepareInput(LeaseKey(granted.job.id, 2)))
    assert forge.requests == []


async def test_a_stopped_job_prepares_nothing(host: WorkerHost, forge: FakeGitHub) -> None:
    granted = await host.grant()
    await host.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    assert forge.requests == []


async def test_stop_ends_a_hanging_fetch(host: WorkerHost, forge: FakeGitHub) -> None:
    granted = await host.grant()
    forge.delay_next("git-upload-pack*", 30)
    preparing = asyncio.create_task(host.run(host.workspaces.prepare, PrepareInput(granted.key)))
    async with asyncio.timeout(10):
        while forge.pending_faults:  # noqa: ASYNC110 - the forge has no event to wait for
            await asyncio.sleep(0.01)
        await host.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await preparing


async def test_a_lease_lost_while_preparing_is_noticed(host: WorkerHost) -> None:
    granted = await host.grant()
    await host.world.store.update_job(granted.job.id, {"lease": 2}, _running_under(1))
    with pytest.raises(LeaseLost):
        await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    assert (await host.world.read(granted.job)).worktree_path is None


@pytest.mark.parametrize("job_type", JobType)
async def test_without_a_token_a_scratch_repository_asks_for_one(
    world: World, forge: FakeGitHub, tmp_path: Path, job_type: JobType
) -> None:
    host = WorkerHost(tmp_path / "host", world, forge, token=None)
    granted = await host.grant(job_type=job_type)
    with pytest.raises(JobFailure) as caught:
        await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    assert caught.value.code is FailureCode.GITHUB_TOKEN_MISSING


async def test_without_a_token_a_public_repository_can_be_read_and_not_worked_on(
    world: World, forge: FakeGitHub, tmp_path: Path
) -> None:
    forge.repository(OWNER, NAME).private = False
    host = WorkerHost(tmp_path / "host", world, forge, token=None)
    assert (await host.prepare(await host.grant_task())).exists
    asked = len(forge.requests)
    code = await host.grant()
    with pytest.raises(JobFailure) as caught:
        await host.run(host.workspaces.prepare, PrepareInput(code.key))
    assert caught.value.code is FailureCode.GITHUB_TOKEN_MISSING
    assert len(forge.requests) == asked


async def test_a_missing_repository_is_a_failure_of_the_job(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    await host.world.store.add_repository(gone := a_repository(host.world.client, repo_name="gone"))
    granted = await host.grant(repository_id=gone.id)
    with pytest.raises(JobFailure) as caught:
        await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    assert caught.value.code is FailureCode.REPOSITORY_NOT_FOUND


async def test_fetching_a_mirror_returns_its_path(host: WorkerHost) -> None:
    repository = host.world.repository
    expected = FetchMirrorResult("acme/shop", True, str(host.mirrors.path(OWNER, NAME)), None)
    for _ in range(2):
        assert (
            await host.run(host.workspaces.fetch_mirror, FetchMirrorInput(repository.id))
            == expected
        )
    assert host.mirrors.path(OWNER, NAME).is_dir()


async def test_a_mirror_that_cannot_be_fetched_is_a_result(
    host: WorkerHost, world: World, forge: FakeGitHub, tmp_path: Path
) -> None:
    await world.store.add_repository(gone := a_repository(world.client, repo_name="gone"))
    result = await host.run(host.workspaces.fetch_mirror, FetchMirrorInput(gone.id))
    assert (result.repository, result.success, result.path) == ("acme/gone", False, None)
    assert FailureCode.REPOSITORY_NOT_FOUND.sentence in str(result.error)

    without = WorkerHost(tmp_path / "without", world, forge, token=None)
    result = await without.run(
        without.workspaces.fetch_mirror, FetchMirrorInput(world.repository.id)
    )
    assert FailureCode.GITHUB_TOKEN_MISSING.sentence in str(result.error)

    with pytest.raises(NotFound):
        await host.run(host.workspaces.fetch_mirror, FetchMirrorInput(UNKNOWN_ID))
