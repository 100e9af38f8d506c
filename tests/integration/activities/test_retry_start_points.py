"""The start of a retry without a branch on the remote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activities.workspaces import PrepareInput, PrepareResult, PublishInput
from domain.jobs import LIVE, Job, JobStatus, JobType
from fakes.github.server import FakeGitHub
from store.protocol import Guard, JobChanges
from tests.integration.activities.worker_host import NAME, OWNER, Granted, WorkerHost


@pytest.fixture
def theirs(forge: FakeGitHub) -> str:
    """The head of a branch with commits of another author."""
    return move(forge)


@pytest.fixture
def other(host: WorkerHost, forge: FakeGitHub, tmp_path: Path) -> WorkerHost:
    """Another host."""
    return WorkerHost(tmp_path / "other", host.world, forge)


def move(forge: FakeGitHub, branch: str = "feature/x", text: str = "theirs") -> str:
    return forge.commit(OWNER, NAME, branch, {"theirs.txt": text}, "Theirs")


def head(forge: FakeGitHub, branch: str = "main") -> str:
    return forge.branches(OWNER, NAME)[branch]


async def failed(host: WorkerHost, branch: str = "feature/x", **values: Any) -> Job:
    return await host.world.add_job(
        branch_name=branch, status=JobStatus.FAILED, phase=None, **values
    )


async def failed_after_pushing(host: WorkerHost, branch: str, **values: Any) -> Job:
    """A job with a pushed branch and a refused pull request."""
    granted, worktree = await host.prepared(branch_name=branch, **values)
    (worktree.path / "ours.txt").write_text("ours\n")
    await host.run(host.workspaces.publish, PublishInput(granted.key))
    over: JobChanges = {"status": JobStatus.FAILED, "phase": None}
    assert await host.world.store.update_job(granted.job.id, over, Guard(LIVE))
    return granted.job


async def retry(host: WorkerHost, original: Job) -> Granted:
    return await host.grant(retry_of=original.id, job_type=original.job_type)


async def start(host: WorkerHost, original: Job) -> str:
    granted = await retry(host, original)
    prepared = await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    assert not prepared.continues_branch
    row = await host.world.read(granted.job)
    assert row.base_sha == prepared.base_sha
    return prepared.base_sha


@pytest.mark.parametrize("job_type", JobType)
async def test_a_retry_starts_at_the_branch_of_the_retried_job(
    host: WorkerHost, theirs: str, job_type: JobType
) -> None:
    assert await start(host, await failed(host, job_type=job_type)) == theirs


@pytest.mark.parametrize("job_type", JobType)
async def test_a_chain_of_retries_starts_at_the_first_existing_branch(
    host: WorkerHost, theirs: str, job_type: JobType
) -> None:
    original = await failed(host, job_type=job_type)
    for number in range(3):
        original = await failed(
            host, f"feature/x-retry-{number}", retry_of=original.id, job_type=job_type
        )
    assert await start(host, original) == theirs


async def test_a_chain_of_retries_uses_the_nearest_branch(
    host: WorkerHost, forge: FakeGitHub, theirs: str
) -> None:
    first = await failed(host)
    second = await failed(host, "feature/x-retry-1", retry_of=first.id)
    nearer = move(forge, "feature/x-retry-1", "nearer")
    assert await start(host, second) == nearer


@pytest.mark.parametrize("job_type", JobType)
async def test_a_retry_without_a_branch_starts_at_the_base(
    host: WorkerHost, forge: FakeGitHub, job_type: JobType
) -> None:
    original = await failed(host, "never-pushed", job_type=job_type)
    assert await start(host, original) == head(forge)


async def test_commits_that_the_job_pushed_are_not_the_start(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    original = await failed_after_pushing(host, "feature/new")
    assert await start(host, original) == head(forge)


async def test_commits_that_an_earlier_job_pushed_are_not_the_start(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    first = await failed_after_pushing(host, "feature/new")
    second = await failed(host, "feature/new-retry-1", retry_of=first.id)
    assert await start(host, second) == head(forge)


async def test_a_retry_of_a_retry_starts_where_that_started(
    host: WorkerHost, forge: FakeGitHub, theirs: str
) -> None:
    first = await failed(host)
    second = await failed_after_pushing(host, "feature/x-retry-1", retry_of=first.id)
    assert head(forge, "feature/x-retry-1") != theirs
    assert await start(host, second) == theirs


async def test_commits_of_others_on_the_branch_are_kept(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    original = await failed_after_pushing(host, "feature/new")
    added = move(forge, "feature/new")
    assert await start(host, original) == added


@pytest.mark.parametrize("job_type", JobType)
@pytest.mark.parametrize("is_deleted", [True, False])
async def test_another_host_starts_at_the_same_commit(
    host: WorkerHost,
    other: WorkerHost,
    forge: FakeGitHub,
    theirs: str,
    job_type: JobType,
    is_deleted: bool,
) -> None:
    granted = await retry(host, await failed(host, job_type=job_type))
    await host.prepare(granted)
    if is_deleted:
        forge.repository(OWNER, NAME).bare.delete("feature/x")
    else:
        move(forge, text="moved on")
    other.take(granted.job, granted.key.number)
    worktree = await other.prepare(granted)
    assert worktree.base_sha == theirs
    assert (worktree.path / "theirs.txt").read_text() == "theirs"


async def test_another_host_continues_the_pushed_commits(
    host: WorkerHost, other: WorkerHost, theirs: str
) -> None:
    granted = await retry(host, await failed(host))
    worktree = await host.prepare(granted)
    (worktree.path / "ours.txt").write_text("ours\n")
    published = await host.run(host.workspaces.publish, PublishInput(granted.key))
    other.take(granted.job, granted.key.number)
    prepared = await other.run(other.workspaces.prepare, PrepareInput(granted.key))
    assert prepared == PrepareResult(str(published.sha), continues_branch=True, existed=False)


async def test_a_code_job_without_a_retry_starts_at_its_base(
    host: WorkerHost, other: WorkerHost, forge: FakeGitHub
) -> None:
    granted, _ = await host.prepared()
    moved = move(forge, "main")
    other.take(granted.job, granted.key.number)
    assert (await other.prepare(granted)).base_sha == moved
