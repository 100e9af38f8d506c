"""Salvage expires, but not while a job is going to publish it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.jobs import LIVE, JobStatus, RetryFrom
from host.retention import Retention
from store import unfinished_jobs
from store.protocol import Guard, JobChanges
from tests.integration.activities.machine import NAME, OWNER, Machine
from workspace.lifecycle.expiry import Expiry

ALL_IS_OLD = timedelta(hours=-1)


async def end(machine: Machine, job_id: str) -> None:
    over: JobChanges = {"status": JobStatus.FAILED, "phase": None}
    assert await machine.world.store.update_job(job_id, over, Guard(LIVE))


async def is_kept(machine: Machine, job_id: str) -> list[bool]:
    """Return whether this host and the store have the salvage."""
    on_disk = await machine.salvage.kept(OWNER, NAME, job_id)
    return [on_disk is not None, await machine.world.store.kept_work(job_id) is not None]


async def test_salvage_is_kept_until_the_job_that_publishes_it_has_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_jobs, "PAGE", 1)
    granted, worktree = await machine.prepared()
    original = granted.job
    (worktree.path / "login.py").write_text("login\n")
    machine.leases.drop(machine.leases.require(granted.key))
    await end(machine, original.id)
    await machine.sweeper.sweep()
    retries = [
        await machine.world.add_job(
            retry_of=original.id, retry_from=RetryFrom.PUBLISH, branch_name=f"again-{number}"
        )
        for number in range(2)
    ]
    await machine.world.add_job(retry_of=original.id, branch_name="from-the-start")
    retention = Retention(machine.world.store, Expiry(machine.worktrees), ALL_IS_OLD)
    for retry in retries:
        await retention.expire()
        assert await is_kept(machine, original.id) == [True, True]
        await end(machine, retry.id)
    await retention.expire()
    assert await is_kept(machine, original.id) == [False, False]
