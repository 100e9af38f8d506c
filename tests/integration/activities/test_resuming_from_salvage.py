"""Preparing a job that publishes the salvage of another job, on the same or another host."""

from __future__ import annotations

from pathlib import Path

import pytest

from activities.workspaces import CleanUpInput, PrepareInput, PublishInput
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import LIVE, Job, JobStatus, RetryFrom
from fakes.github.server import FakeGitHub
from store.protocol import Guard, JobChanges
from tests.integration.activities.worker_host import HOST, NAME, OWNER, Granted, WorkerHost
from workspace.salvage import salvage
from workspace.salvage.refs import SALVAGE


async def leave(host: WorkerHost) -> Job:
    """Return a job that failed after it had changed a file."""
    granted, worktree = await host.prepared()
    (worktree.path / "login.py").write_text("login\n")
    failed: JobChanges = {"status": JobStatus.FAILED, "host": HOST}
    assert await host.world.store.update_job(granted.job.id, failed, Guard(LIVE))
    await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    return granted.job


@pytest.fixture
async def left(host: WorkerHost) -> Job:
    return await leave(host)


@pytest.fixture
async def long(host: WorkerHost, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job with a patch that is too long for the store."""
    monkeypatch.setattr(salvage, "MAX_PATCH_BYTES", 10)
    return await leave(host)


@pytest.fixture
def other(host: WorkerHost, forge: FakeGitHub, tmp_path: Path) -> WorkerHost:
    """Another host."""
    return WorkerHost(tmp_path / "other", host.world, forge, host="mill-2")


async def retry(host: WorkerHost, original: Job) -> Granted:
    return await host.grant(retry_of=original.id, retry_from=RetryFrom.PUBLISH)


async def refusal(host: WorkerHost, original: Job) -> JobFailure:
    granted = await retry(host, original)
    with pytest.raises(JobFailure) as caught:
        await host.run(host.workspaces.prepare, PrepareInput(granted.key))
    return caught.value


async def publish(host: WorkerHost, original: Job) -> str | None:
    """Publish the salvage by a retry; return the file on the branch of the retry."""
    granted = await retry(host, original)
    await host.prepare(granted)
    await host.run(host.workspaces.publish, PublishInput(granted.key))
    return host.forge.read_file(OWNER, NAME, granted.job.branch_name, "login.py")


async def test_any_host_restores_the_salvage_from_the_store(
    host: WorkerHost, other: WorkerHost, left: Job
) -> None:
    assert await publish(other, left) == "login\n"
    assert await publish(host, left) == "login\n"


async def test_salvage_on_another_host_only_waits_for_that_host(
    host: WorkerHost, other: WorkerHost, long: Job
) -> None:
    failure = await refusal(other, long)
    assert (failure.code, failure.transient) == (FailureCode.KEPT_WORK_ELSEWHERE, False)
    assert f"only on the host {HOST}" in failure.message
    assert long.id in failure.message
    assert await publish(host, long) == "login\n"


async def test_a_renamed_host_still_has_the_salvage(host: WorkerHost, long: Job) -> None:
    renamed = WorkerHost(host.directory, host.world, host.forge, host="mill-2")
    assert await publish(renamed, long) == "login\n"


async def test_salvage_that_its_host_has_lost_is_gone(host: WorkerHost, long: Job) -> None:
    mirror = host.mirrors.mirror(OWNER, NAME)
    await host.mirrors.git.run("update-ref", "-d", SALVAGE + long.id, at=mirror.place)
    assert (await refusal(host, long)).code is FailureCode.KEPT_WORK_GONE
