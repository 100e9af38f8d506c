"""Publishing, checking and cleaning up a job's worktree, as activities."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from activities.workspaces import CleanUpInput, PublishInput, PublishResult, VerifyUnchangedInput
from domain.errors import JobFailure, LeaseLost
from domain.failures import FailureCode
from domain.job_details import KeptWork
from domain.jobs import LIVE, Job, JobStatus, Phase
from domain.timestamps import utc_now
from fakes.github.server import FakeGitHub
from host.salvage_records import Keeping
from host.slots.leases import LeaseKey
from store.protocol import Guard
from tests.integration.activities.machine import CLAUDE, HOST, NAME, OWNER, Granted, Machine
from tests.integration.workspace.conftest import as_claude
from tests.unit.store.samples import UNKNOWN_ID
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree


async def publish(machine: Machine, granted: Granted) -> PublishResult:
    return await machine.run(machine.workspaces.publish, PublishInput(granted.key))


async def refusal(machine: Machine, granted: Granted) -> FailureCode:
    with pytest.raises(JobFailure) as caught:
        await publish(machine, granted)
    return caught.value.code


def pushes(forge: FakeGitHub) -> int:
    return sum("git-receive-pack" in request.path for request in forge.requests)


@pytest.fixture
async def work(machine: Machine) -> tuple[Granted, Worktree]:
    """A job whose worktree has a change that is not committed."""
    granted, worktree = await machine.prepared(title="Add a login page")
    (worktree.path / "login.py").write_text("login\n")
    return granted, worktree


Work = tuple[Granted, Worktree]


async def test_work_is_committed_pushed_and_recorded(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    granted, worktree = work
    published = await publish(machine, granted)
    branch = granted.job.branch_name
    assert published.sha == forge.branches(OWNER, NAME)[branch]
    (entry,) = forge.log(OWNER, NAME, branch)[:1]
    assert (entry.subject, entry.author) == ("Add a login page", CLAUDE.name)
    row = await machine.world.read(granted.job)
    assert (row.head_sha, row.files_changed, row.phase) == (published.sha, 1, Phase.PUBLISHING)
    assert worktree.exists


async def test_publishing_again_changes_nothing(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    first = await publish(machine, work[0])
    assert await publish(machine, work[0]) == first
    assert len(forge.log(OWNER, NAME, work[0].job.branch_name)) == 2


async def test_where_nothing_changed_nothing_is_published(
    machine: Machine, forge: FakeGitHub
) -> None:
    granted, worktree = await machine.prepared()
    (worktree.path / "debug.log").write_text("ignored")
    assert await publish(machine, granted) == PublishResult(None)
    row = await machine.world.read(granted.job)
    assert (row.files_changed, row.head_sha) == (0, None)
    assert pushes(forge) == 0


async def test_a_continued_branch_is_pushed_on_top(machine: Machine, forge: FakeGitHub) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    granted, worktree = await machine.prepared(branch_name="feature/old")
    (worktree.path / "new.py").write_text("new")
    await publish(machine, granted)
    subjects = [entry.subject for entry in forge.log(OWNER, NAME, "feature/old")]
    assert subjects == ["Add a login page", "Begin", "Initial commit"]


async def test_the_head_is_recorded_before_it_is_pushed(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    """A job that is cancelled at this moment can take its branch back."""
    granted, _ = work
    forge.fail_next("git-receive-pack*", status=503, times=2)
    assert await refusal(machine, granted) is not FailureCode.INTERNAL
    head = (await machine.world.read(granted.job)).head_sha
    assert head is not None
    forge.clear_faults()
    assert (await publish(machine, granted)).sha == head


async def test_a_push_whose_answer_was_lost_counts(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    forge.fail_next("git-receive-pack", status=None, after=True)
    published = await publish(machine, granted)
    assert forge.branches(OWNER, NAME)[granted.job.branch_name] == published.sha


async def test_a_branch_that_moved_is_not_overwritten(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    theirs = forge.commit(OWNER, NAME, granted.job.branch_name, {"x": "x"}, "Mine now")
    assert await refusal(machine, granted) is FailureCode.BRANCH_MOVED
    assert forge.branches(OWNER, NAME)[granted.job.branch_name] == theirs


async def test_a_lease_that_is_not_held_here_publishes_nothing(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    machine.leases.drop(machine.leases.require(granted.key))
    with pytest.raises(LeaseLost):
        await publish(machine, granted)
    assert pushes(forge) == 0


@pytest.mark.parametrize("changes", [{"lease": 2}, {"status": JobStatus.CANCELLED, "phase": None}])
async def test_a_lease_that_the_store_does_not_know_any_more_publishes_nothing(
    machine: Machine, forge: FakeGitHub, work: Work, changes: Any
) -> None:
    granted, _ = work
    await machine.world.store.update_job(granted.job.id, changes, Guard(LIVE))
    with pytest.raises(LeaseLost):
        await publish(machine, granted)
    assert pushes(forge) == 0


async def test_a_lease_lost_while_the_work_is_committed_pushes_nothing(
    machine: Machine, forge: FakeGitHub, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted, _ = work
    commit_all = machine.publishing.commit_all

    async def commit_and_lose(*arguments: Any) -> None:
        await commit_all(*arguments)
        assert await machine.world.store.update_job(granted.job.id, {"lease": 2}, Guard(LIVE))

    monkeypatch.setattr(machine.publishing, "commit_all", commit_and_lose)
    with pytest.raises(LeaseLost):
        await publish(machine, granted)
    assert (await machine.world.read(granted.job)).head_sha is None
    assert pushes(forge) == 0


async def test_a_push_that_has_begun_is_finished(
    machine: Machine, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    forge.delay_next("git-receive-pack", 0.3)
    publishing = asyncio.create_task(publish(machine, granted))
    async with asyncio.timeout(20):
        while forge.pending_faults:  # noqa: ASYNC110 - the forge has no event to wait for
            await asyncio.sleep(0.01)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    head = (await machine.world.read(granted.job)).head_sha
    assert forge.branches(OWNER, NAME)[granted.job.branch_name] == head


async def test_a_worktree_that_is_gone_cannot_be_published(machine: Machine) -> None:
    granted = await machine.grant()
    assert await refusal(machine, granted) is FailureCode.GIT_FAILED


async def test_a_task_that_changed_nothing_passes(machine: Machine) -> None:
    granted = await machine.grant_task()
    await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    worktree = await machine.prepare(granted)
    (worktree.path / "debug.log").write_text("ignored")
    await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))


async def test_a_task_passes_whose_files_no_checkout_leaves_as_they_were_committed(
    machine: Machine, forge: FakeGitHub
) -> None:
    untidy = {".gitattributes": "*.bat text eol=crlf\n", "run.bat": "one\r\ntwo\r\n"}
    forge.commit(OWNER, NAME, "main", untidy, "Untidy")
    granted = await machine.grant_task()
    worktree = await machine.prepare(granted)
    await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    (worktree.path / "run.bat").write_text("edited")
    with pytest.raises(JobFailure, match=r"Changed: run\.bat\."):
        await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))


async def test_a_task_that_changed_files_fails_and_names_some(machine: Machine) -> None:
    granted = await machine.grant_task()
    worktree = await machine.prepare(granted)
    (worktree.path / "README.md").unlink()
    for number in range(7):
        (worktree.path / f"new-{number}").write_text("new")
    with pytest.raises(JobFailure) as caught:
        await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    assert caught.value.code is FailureCode.TASK_CHANGED_FILES
    names = caught.value.message.rpartition("Changed: ")[2]
    assert names == "README.md, new-0, new-1, new-2, new-3."


def add_submodule(machine: Machine, forge: FakeGitHub) -> None:
    """Give the repository a submodule `part`."""
    forge.create_repository(OWNER, "part", {"part.py": "part\n"})
    modules = '[submodule "part"]\n\tpath = part\n\turl = ../part.git\n'
    forge.commit(OWNER, NAME, "main", {".gitmodules": modules}, "Name a submodule")
    author = machine.directory / "author"
    bare = forge.root / OWNER / f"{NAME}.git"
    as_claude(machine.directory, "clone", "--quiet", str(bare), str(author))
    link = f"160000,{forge.branches(OWNER, 'part')['main']},part"
    as_claude(author, "update-index", "--add", "--cacheinfo", link)
    as_claude(author, "commit", "--quiet", "-m", "Link it")
    as_claude(author, "push", "--quiet", "origin", "main")


async def test_work_in_a_submodule_fails_the_job_and_is_moved_aside(
    machine: Machine, forge: FakeGitHub
) -> None:
    add_submodule(machine, forge)
    granted, worktree = await machine.prepared()
    (worktree.path / "part/part.py").write_text("edited\n")
    with pytest.raises(JobFailure, match=r"compared with them: part\. Changes of a") as caught:
        await publish(machine, granted)
    assert caught.value.code is FailureCode.GIT_FAILED
    assert pushes(forge) == 0
    await ended(machine, granted.job, JobStatus.FAILED)
    for _ in range(2):
        await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    [said] = [line for line in await machine.said(granted.job) if "Submodules" in line]
    files = machine.worktrees.orphaned / f"{granted.job.id}-submodules"
    assert (files / "part/part.py").read_text() == "edited\n"
    assert f"them: part. They are kept on {HOST}" in said
    assert f"files in {files}, and" in said
    assert f"directories in {files}.git." in said


async def test_a_task_that_changed_a_submodule_fails(machine: Machine, forge: FakeGitHub) -> None:
    add_submodule(machine, forge)
    granted = await machine.grant_task()
    worktree = await machine.prepare(granted)
    await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    (worktree.path / "part/new.py").write_text("new\n")
    with pytest.raises(JobFailure, match=r"Changed: part\."):
        await machine.run(machine.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))


async def test_the_sweep_says_where_work_in_submodules_is(
    machine: Machine, forge: FakeGitHub
) -> None:
    add_submodule(machine, forge)
    granted, worktree = await machine.prepared()
    (worktree.path / "part/new.py").write_text("new\n")
    await ended(machine, granted.job)
    await machine.world.store.update_job(
        granted.job.id, {"phase": None}, Guard(frozenset(JobStatus))
    )
    machine.leases.drop(machine.leases.require(granted.key))
    await machine.sweeper.sweep()
    assert not worktree.path.exists()
    assert [line for line in await machine.said(granted.job) if "Submodules" in line]


async def ended(machine: Machine, job: Job, status: JobStatus = JobStatus.CANCELLED) -> None:
    changes: Any = {"status": status, "phase": Phase.CLEANING_UP}
    assert await machine.world.store.update_job(job.id, changes, Guard(LIVE))


async def test_cleaning_up_keeps_unpublished_work(machine: Machine, work: Work) -> None:
    granted, worktree = work
    await ended(machine, granted.job)
    for _ in range(2):
        await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    assert (await machine.world.read(granted.job)).phase is None
    kept = await machine.salvage.kept(OWNER, NAME, granted.job.id)
    assert kept is not None
    assert "+login" in (kept.patch or "")


async def test_cleaning_up_after_a_delivery_keeps_nothing(machine: Machine, work: Work) -> None:
    granted, worktree = work
    await publish(machine, granted)
    await ended(machine, granted.job, JobStatus.COMPLETED)
    await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    assert await machine.salvage.kept(OWNER, NAME, granted.job.id) is None
    assert await machine.world.store.kept_work(granted.job.id) is None


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
async def test_what_was_pushed_and_not_delivered_is_kept(
    machine: Machine, work: Work, status: JobStatus
) -> None:
    """Its pull request was refused, or its branch is taken back."""
    granted, worktree = work
    await publish(machine, granted)
    await ended(machine, granted.job, status)
    for _ in range(2):
        await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    kept = await machine.world.store.kept_work(granted.job.id)
    assert kept is not None
    assert (kept.host, kept.base_sha) == (HOST, worktree.base_sha)
    assert "login" in (kept.patch or "")
    notices = [line for line in await machine.said(granted.job) if "The work is kept" in line]
    assert len(notices) == 1


async def test_cleaning_up_where_there_is_nothing(machine: Machine) -> None:
    granted = await machine.grant()
    await machine.run(machine.workspaces.clean_up, CleanUpInput(UNKNOWN_ID))
    await ended(machine, granted.job)
    await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert (await machine.world.read(granted.job)).phase is None


async def test_no_lease_is_needed_and_none_is_given_back(machine: Machine, work: Work) -> None:
    granted, _ = work
    await ended(machine, granted.job)
    await machine.run(machine.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert machine.leases.find(granted.key) is not None
    with pytest.raises(LeaseLost):
        await publish(machine, Granted(granted.job, LeaseKey(granted.job.id, 5)))


async def test_a_lost_machine_does_not_replace_what_its_successor_kept(
    machine: Machine, work: Work
) -> None:
    granted, worktree = work
    (worktree.path / "half.py").write_text("half\n")
    store, job = machine.world.store, granted.job
    complete = KeptWork(job.id, "1" * 40, "2" * 40, "mill-2", "diff --git a/all b/all\n", utc_now())
    await store.update_job(job.id, {"host": "mill-2"}, Guard(LIVE))
    await ended(machine, job, JobStatus.FAILED)
    await store.keep_work(complete)
    await store.update_job(job.id, {"phase": None}, Guard(frozenset(JobStatus)))
    machine.leases.drop(machine.leases.require(granted.key))
    await machine.sweeper.sweep()
    assert not worktree.path.exists()
    kept = await store.kept_work(job.id)
    assert kept is not None
    assert kept.patch == complete.patch
    here = await machine.salvage.kept(OWNER, NAME, job.id)
    assert here is not None
    assert "half" in (here.patch or "")


async def test_what_is_said_of_kept_work_is_true(machine: Machine) -> None:
    keeping = Keeping(machine.world.store, HOST)
    code = await machine.grant()
    task = await machine.grant_task()
    for granted, patch in ((code, "diff"), (task, None)):
        await ended(machine, granted.job, JobStatus.FAILED)
        await keeping.record(granted.job.id, Salvaged("1" * 40, "2" * 40, patch))
    [said] = [line for line in await machine.said(code.job) if "kept" in line]
    assert "/patch" in said
    assert '{"from": "publish"}' in said
    assert await machine.said(task.job) == ["The work is kept."]
