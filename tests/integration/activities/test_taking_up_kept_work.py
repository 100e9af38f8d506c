"""Preparing a job that publishes what another has left, on the machine that has it or another."""

from __future__ import annotations

from pathlib import Path

import pytest

from activities.workspaces import CleanUpInput, PrepareInput, PublishInput
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import LIVE, Job, JobStatus, RetryFrom
from fakes.github.server import FakeGitHub
from store.protocol import Guard, JobChanges
from tests.integration.activities.machine import HOST, NAME, OWNER, Granted, Machine
from workspace.salvage import salvage
from workspace.salvage.refs import SALVAGE


async def leave(machine: Machine) -> Job:
    """Return a job that failed after it had changed something."""
    granted, worktree = await machine.prepared()
    (worktree.path / "login.py").write_text("login\n")
    failed: JobChanges = {"status": JobStatus.FAILED, "host": HOST}
    assert await machine.world.store.update_job(granted.job.id, failed, Guard(LIVE))
    await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    return granted.job


@pytest.fixture
async def left(machine: Machine) -> Job:
    return await leave(machine)


@pytest.fixture
async def long(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job whose work is too long to be stored."""
    monkeypatch.setattr(salvage, "MAX_PATCH_BYTES", 10)
    return await leave(machine)


@pytest.fixture
def other(machine: Machine, forge: FakeGitHub, tmp_path: Path) -> Machine:
    """Another machine."""
    return Machine(tmp_path / "other", machine.world, forge, host="mill-2")


async def retry(machine: Machine, original: Job) -> Granted:
    return await machine.grant(retry_of=original.id, retry_from=RetryFrom.PUBLISH)


async def refusal(machine: Machine, original: Job) -> JobFailure:
    granted = await retry(machine, original)
    with pytest.raises(JobFailure) as caught:
        await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    return caught.value


async def publish(machine: Machine, original: Job) -> str | None:
    """Publish it by a retry; return what the file is on the branch of that."""
    granted = await retry(machine, original)
    await machine.prepare(granted)
    await machine.run(machine.workspaces.publish, PublishInput(granted.key))
    return machine.forge.read_file(OWNER, NAME, granted.job.branch_name, "login.py")


async def test_any_machine_takes_it_from_the_store(
    machine: Machine, other: Machine, left: Job
) -> None:
    assert await publish(other, left) == "login\n"
    assert await publish(machine, left) == "login\n"


async def test_what_only_the_other_machine_has_waits_for_it(
    machine: Machine, other: Machine, long: Job
) -> None:
    failure = await refusal(other, long)
    assert (failure.code, failure.transient) == (FailureCode.KEPT_WORK_ELSEWHERE, False)
    assert f"only on the host {HOST}" in failure.message
    assert long.id in failure.message
    assert await publish(machine, long) == "login\n"


async def test_a_machine_that_was_renamed_still_has_it(machine: Machine, long: Job) -> None:
    renamed = Machine(machine.directory, machine.world, machine.forge, host="mill-2")
    assert await publish(renamed, long) == "login\n"


async def test_what_its_own_machine_has_lost_is_gone(machine: Machine, long: Job) -> None:
    mirror = machine.mirrors.mirror(OWNER, NAME)
    await machine.mirrors.git.run("update-ref", "-d", SALVAGE + long.id, at=mirror.place)
    assert (await refusal(machine, long)).code is FailureCode.KEPT_WORK_GONE
