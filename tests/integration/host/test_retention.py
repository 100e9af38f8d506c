"""Salvage expires, but not while a job is going to publish it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.jobs import LIVE, JobStatus, RetryFrom
from host.retention import Retention
from store import unfinished_jobs
from store.protocol import Guard, JobChanges
from tests.integration.activities.worker_host import NAME, OWNER, WorkerHost
from workspace.lifecycle.expiry import Expiry

ALL_IS_OLD = timedelta(hours=-1)


async def end(host: WorkerHost, job_id: str) -> None:
    over: JobChanges = {"status": JobStatus.FAILED, "phase": None}
    assert await host.world.store.update_job(job_id, over, Guard(LIVE))


async def is_kept(host: WorkerHost, job_id: str) -> list[bool]:
    """Return whether this host and the store have the salvage."""
    on_disk = await host.salvage.kept(OWNER, NAME, job_id)
    return [on_disk is not None, await host.world.store.kept_work(job_id) is not None]


async def test_salvage_is_kept_until_the_job_that_publishes_it_has_ended(
    host: WorkerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_jobs, "PAGE", 1)
    granted, worktree = await host.prepared()
    original = granted.job
    (worktree.path / "login.py").write_text("login\n")
    host.leases.drop(host.leases.require(granted.key))
    await end(host, original.id)
    await host.sweeper.sweep()
    retries = [
        await host.world.add_job(
            retry_of=original.id, retry_from=RetryFrom.PUBLISH, branch_name=f"again-{number}"
        )
        for number in range(2)
    ]
    await host.world.add_job(retry_of=original.id, branch_name="from-the-start")
    retention = Retention(host.world.store, Expiry(host.worktrees), ALL_IS_OLD)
    for retry in retries:
        await retention.expire()
        assert await is_kept(host, original.id) == [True, True]
        await end(host, retry.id)
    await retention.expire()
    assert await is_kept(host, original.id) == [False, False]
