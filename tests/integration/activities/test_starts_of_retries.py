"""Where a retry starts, whose own branch is not on the remote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activities.workspaces import PrepareInput, PrepareResult, PublishInput
from domain.jobs import LIVE, Job, JobStatus, JobType
from fakes.github.server import FakeGitHub
from store.protocol import Guard, JobChanges
from tests.integration.activities.machine import NAME, OWNER, Granted, Machine


@pytest.fixture
def theirs(forge: FakeGitHub) -> str:
    """The head of a branch that somebody works on."""
    return move(forge)


@pytest.fixture
def other(machine: Machine, forge: FakeGitHub, tmp_path: Path) -> Machine:
    """Another machine."""
    return Machine(tmp_path / "other", machine.world, forge)


def move(forge: FakeGitHub, branch: str = "feature/x", text: str = "theirs") -> str:
    return forge.commit(OWNER, NAME, branch, {"theirs.txt": text}, "Theirs")


def head(forge: FakeGitHub, branch: str = "main") -> str:
    return forge.branches(OWNER, NAME)[branch]


async def failed(machine: Machine, branch: str = "feature/x", **values: Any) -> Job:
    return await machine.world.add_job(
        branch_name=branch, status=JobStatus.FAILED, phase=None, **values
    )


async def failed_after_pushing(machine: Machine, branch: str, **values: Any) -> Job:
    """A job whose branch was pushed, and whose pull request was refused."""
    granted, worktree = await machine.prepared(branch_name=branch, **values)
    (worktree.path / "ours.txt").write_text("ours\n")
    await machine.run(machine.workspaces.publish, PublishInput(granted.key))
    over: JobChanges = {"status": JobStatus.FAILED, "phase": None}
    assert await machine.world.store.update_job(granted.job.id, over, Guard(LIVE))
    return granted.job


async def retry(machine: Machine, original: Job) -> Granted:
    return await machine.grant(retry_of=original.id, job_type=original.job_type)


async def start(machine: Machine, original: Job) -> str:
    granted = await retry(machine, original)
    prepared = await machine.run(machine.workspaces.prepare, PrepareInput(granted.key))
    assert not prepared.continues_branch
    row = await machine.world.read(granted.job)
    assert row.base_sha == prepared.base_sha
    return prepared.base_sha


@pytest.mark.parametrize("job_type", JobType)
async def test_it_starts_at_the_branch_of_the_job_that_it_retries(
    machine: Machine, theirs: str, job_type: JobType
) -> None:
    assert await start(machine, await failed(machine, job_type=job_type)) == theirs


@pytest.mark.parametrize("job_type", JobType)
async def test_a_retry_of_retries_goes_back_to_the_first_branch_that_is_there(
    machine: Machine, theirs: str, job_type: JobType
) -> None:
    original = await failed(machine, job_type=job_type)
    for number in range(3):
        original = await failed(
            machine, f"feature/x-retry-{number}", retry_of=original.id, job_type=job_type
        )
    assert await start(machine, original) == theirs


async def test_the_nearest_branch_is_taken(
    machine: Machine, forge: FakeGitHub, theirs: str
) -> None:
    first = await failed(machine)
    second = await failed(machine, "feature/x-retry-1", retry_of=first.id)
    nearer = move(forge, "feature/x-retry-1", "nearer")
    assert await start(machine, second) == nearer


@pytest.mark.parametrize("job_type", JobType)
async def test_without_such_a_branch_it_starts_at_the_base(
    machine: Machine, forge: FakeGitHub, job_type: JobType
) -> None:
    original = await failed(machine, "never-pushed", job_type=job_type)
    assert await start(machine, original) == head(forge)


async def test_what_the_job_itself_had_pushed_is_done_anew(
    machine: Machine, forge: FakeGitHub
) -> None:
    original = await failed_after_pushing(machine, "feature/new")
    assert await start(machine, original) == head(forge)


async def test_what_an_earlier_job_had_pushed_is_done_anew(
    machine: Machine, forge: FakeGitHub
) -> None:
    first = await failed_after_pushing(machine, "feature/new")
    second = await failed(machine, "feature/new-retry-1", retry_of=first.id)
    assert await start(machine, second) == head(forge)


async def test_what_a_retry_had_pushed_is_done_anew_from_where_that_began(
    machine: Machine, forge: FakeGitHub, theirs: str
) -> None:
    first = await failed(machine)
    second = await failed_after_pushing(machine, "feature/x-retry-1", retry_of=first.id)
    assert head(forge, "feature/x-retry-1") != theirs
    assert await start(machine, second) == theirs


async def test_what_somebody_added_to_the_pushed_work_is_not_left_out(
    machine: Machine, forge: FakeGitHub
) -> None:
    original = await failed_after_pushing(machine, "feature/new")
    added = move(forge, "feature/new")
    assert await start(machine, original) == added


@pytest.mark.parametrize("job_type", JobType)
@pytest.mark.parametrize("is_deleted", [True, False])
async def test_another_machine_starts_where_the_lost_one_did(
    machine: Machine,
    other: Machine,
    forge: FakeGitHub,
    theirs: str,
    job_type: JobType,
    is_deleted: bool,
) -> None:
    granted = await retry(machine, await failed(machine, job_type=job_type))
    await machine.prepare(granted)
    if is_deleted:
        forge.repository(OWNER, NAME).bare.delete("feature/x")
    else:
        move(forge, text="moved on")
    other.take(granted.job, granted.key.number)
    worktree = await other.prepare(granted)
    assert worktree.base_sha == theirs
    assert (worktree.path / "theirs.txt").read_text() == "theirs"


async def test_another_machine_goes_on_with_what_the_lost_one_pushed(
    machine: Machine, other: Machine, theirs: str
) -> None:
    granted = await retry(machine, await failed(machine))
    worktree = await machine.prepare(granted)
    (worktree.path / "ours.txt").write_text("ours\n")
    published = await machine.run(machine.workspaces.publish, PublishInput(granted.key))
    other.take(granted.job, granted.key.number)
    prepared = await other.run(other.workspaces.prepare, PrepareInput(granted.key))
    assert prepared == PrepareResult(str(published.sha), continues_branch=True, existed=False)


async def test_a_code_job_that_is_no_retry_starts_anew_at_its_base(
    machine: Machine, other: Machine, forge: FakeGitHub
) -> None:
    granted, _ = await machine.prepared()
    moved = move(forge, "main")
    other.take(granted.job, granted.key.number)
    assert (await other.prepare(granted)).base_sha == moved
