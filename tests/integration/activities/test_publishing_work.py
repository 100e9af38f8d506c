"""The activities that publish, verify and clean up a worktree."""

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
from host.salvage_records import SalvageRecords
from host.slots.leases import LeaseKey
from store.protocol import Guard
from tests.integration.activities.worker_host import CLAUDE, HOST, NAME, OWNER, Granted, WorkerHost
from tests.integration.workspace.conftest import as_claude
from tests.unit.store.samples import UNKNOWN_ID
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree


async def publish(host: WorkerHost, granted: Granted) -> PublishResult:
    return await host.run(host.workspaces.publish, PublishInput(granted.key))


async def refusal(host: WorkerHost, granted: Granted) -> FailureCode:
    with pytest.raises(JobFailure) as caught:
        await publish(host, granted)
    return caught.value.code


def pushes(forge: FakeGitHub) -> int:
    return sum("git-receive-pack" in request.path for request in forge.requests)


@pytest.fixture
async def work(host: WorkerHost) -> tuple[Granted, Worktree]:
    """A job with an uncommitted change in its worktree."""
    granted, worktree = await host.prepared(title="Add a login page")
    (worktree.path / "login.py").write_text("login\n")
    return granted, worktree


Work = tuple[Granted, Worktree]


async def test_work_is_committed_pushed_and_recorded(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    granted, worktree = work
    published = await publish(host, granted)
    branch = granted.job.branch_name
    assert published.sha == forge.branches(OWNER, NAME)[branch]
    (entry,) = forge.log(OWNER, NAME, branch)[:1]
    assert (entry.subject, entry.author) == ("Add a login page", CLAUDE.name)
    row = await host.world.read(granted.job)
    assert (row.head_sha, row.files_changed, row.phase) == (published.sha, 1, Phase.PUBLISHING)
    assert worktree.exists


async def test_publishing_again_changes_nothing(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    first = await publish(host, work[0])
    assert await publish(host, work[0]) == first
    assert len(forge.log(OWNER, NAME, work[0].job.branch_name)) == 2


async def test_without_changes_nothing_is_published(host: WorkerHost, forge: FakeGitHub) -> None:
    granted, worktree = await host.prepared()
    (worktree.path / "debug.log").write_text("ignored")
    assert await publish(host, granted) == PublishResult(None)
    row = await host.world.read(granted.job)
    assert (row.files_changed, row.head_sha) == (0, None)
    assert pushes(forge) == 0


async def test_a_continued_branch_is_pushed_on_top(host: WorkerHost, forge: FakeGitHub) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    granted, worktree = await host.prepared(branch_name="feature/old")
    (worktree.path / "new.py").write_text("new")
    await publish(host, granted)
    subjects = [entry.subject for entry in forge.log(OWNER, NAME, "feature/old")]
    assert subjects == ["Add a login page", "Begin", "Initial commit"]


async def test_the_head_is_recorded_before_it_is_pushed(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    """A job that is cancelled now can withdraw its branch."""
    granted, _ = work
    forge.fail_next("git-receive-pack*", status=503, times=2)
    assert await refusal(host, granted) is not FailureCode.INTERNAL
    head = (await host.world.read(granted.job)).head_sha
    assert head is not None
    forge.clear_faults()
    assert (await publish(host, granted)).sha == head


async def test_a_push_with_a_lost_response_counts(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    forge.fail_next("git-receive-pack", status=None, after=True)
    published = await publish(host, granted)
    assert forge.branches(OWNER, NAME)[granted.job.branch_name] == published.sha


async def test_a_branch_that_moved_is_not_overwritten(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    theirs = forge.commit(OWNER, NAME, granted.job.branch_name, {"x": "x"}, "Mine now")
    assert await refusal(host, granted) is FailureCode.BRANCH_MOVED
    assert forge.branches(OWNER, NAME)[granted.job.branch_name] == theirs


async def test_a_lease_that_is_not_held_here_publishes_nothing(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    granted, _ = work
    host.leases.drop(host.leases.require(granted.key))
    with pytest.raises(LeaseLost):
        await publish(host, granted)
    assert pushes(forge) == 0


@pytest.mark.parametrize("changes", [{"lease": 2}, {"status": JobStatus.CANCELLED, "phase": None}])
async def test_a_lease_that_the_store_has_replaced_publishes_nothing(
    host: WorkerHost, forge: FakeGitHub, work: Work, changes: Any
) -> None:
    granted, _ = work
    await host.world.store.update_job(granted.job.id, changes, Guard(LIVE))
    with pytest.raises(LeaseLost):
        await publish(host, granted)
    assert pushes(forge) == 0


async def test_a_lease_lost_while_the_work_is_committed_pushes_nothing(
    host: WorkerHost, forge: FakeGitHub, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted, _ = work
    commit_all = host.publishing.commit_all

    async def commit_and_lose(*arguments: Any) -> None:
        await commit_all(*arguments)
        assert await host.world.store.update_job(granted.job.id, {"lease": 2}, Guard(LIVE))

    monkeypatch.setattr(host.publishing, "commit_all", commit_and_lose)
    with pytest.raises(LeaseLost):
        await publish(host, granted)
    assert (await host.world.read(granted.job)).head_sha is None
    assert pushes(forge) == 0


async def test_a_started_push_is_completed(host: WorkerHost, forge: FakeGitHub, work: Work) -> None:
    granted, _ = work
    forge.delay_next("git-receive-pack", 0.3)
    publishing = asyncio.create_task(publish(host, granted))
    async with asyncio.timeout(20):
        while forge.pending_faults:  # noqa: ASYNC110 - the forge has no event to wait for
            await asyncio.sleep(0.01)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    head = (await host.world.read(granted.job)).head_sha
    assert forge.branches(OWNER, NAME)[granted.job.branch_name] == head


async def test_a_missing_worktree_cannot_be_published(host: WorkerHost) -> None:
    granted = await host.grant()
    assert await refusal(host, granted) is FailureCode.GIT_FAILED


async def test_a_task_that_changed_nothing_passes(host: WorkerHost) -> None:
    granted = await host.grant_task()
    await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    worktree = await host.prepare(granted)
    (worktree.path / "debug.log").write_text("ignored")
    await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))


async def test_a_task_passes_if_a_checkout_itself_changes_files(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    untidy = {".gitattributes": "*.bat text eol=crlf\n", "run.bat": "one\r\ntwo\r\n"}
    forge.commit(OWNER, NAME, "main", untidy, "Untidy")
    granted = await host.grant_task()
    worktree = await host.prepare(granted)
    await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    (worktree.path / "run.bat").write_text("edited")
    with pytest.raises(JobFailure, match=r"Changed: run\.bat\."):
        await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))


async def test_a_task_that_changed_files_fails_and_names_them(host: WorkerHost) -> None:
    granted = await host.grant_task()
    worktree = await host.prepare(granted)
    (worktree.path / "README.md").unlink()
    for number in range(7):
        (worktree.path / f"new-{number}").write_text("new")
    with pytest.raises(JobFailure) as caught:
        await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    assert caught.value.code is FailureCode.TASK_CHANGED_FILES
    names = caught.value.message.rpartition("Changed: ")[2]
    assert names == "README.md, new-0, new-1, new-2, new-3."


def add_submodule(host: WorkerHost, forge: FakeGitHub) -> None:
    """Add a submodule `part` to the repository."""
    forge.create_repository(OWNER, "part", {"part.py": "part\n"})
    modules = '[submodule "part"]\n\tpath = part\n\turl = ../part.git\n'
    forge.commit(OWNER, NAME, "main", {".gitmodules": modules}, "Name a submodule")
    author = host.directory / "author"
    bare = forge.root / OWNER / f"{NAME}.git"
    as_claude(host.directory, "clone", "--quiet", str(bare), str(author))
    link = f"160000,{forge.branches(OWNER, 'part')['main']},part"
    as_claude(author, "update-index", "--add", "--cacheinfo", link)
    as_claude(author, "commit", "--quiet", "-m", "Link it")
    as_claude(author, "push", "--quiet", "origin", "main")


async def test_work_in_a_submodule_fails_the_job_and_is_rescued(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    add_submodule(host, forge)
    granted, worktree = await host.prepared()
    (worktree.path / "part/part.py").write_text("edited\n")
    with pytest.raises(JobFailure, match=r"could not be checked: part\. Make submodule") as caught:
        await publish(host, granted)
    assert caught.value.code is FailureCode.GIT_FAILED
    assert pushes(forge) == 0
    await ended(host, granted.job, JobStatus.FAILED)
    for _ in range(2):
        await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    [text] = [line for line in await host.messages(granted.job) if "These submodules" in line]
    files = host.worktrees.orphaned / f"{granted.job.id}-submodules"
    assert (files / "part/part.py").read_text() == "edited\n"
    assert f"be checked): part. They are kept on {HOST}" in text
    assert f"files in {files}, and" in text
    assert f"directories in {files}.git." in text


async def test_a_task_that_changed_a_submodule_fails(host: WorkerHost, forge: FakeGitHub) -> None:
    add_submodule(host, forge)
    granted = await host.grant_task()
    worktree = await host.prepare(granted)
    await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))
    (worktree.path / "part/new.py").write_text("new\n")
    with pytest.raises(JobFailure, match=r"Changed: part\."):
        await host.run(host.workspaces.verify_unchanged, VerifyUnchangedInput(granted.key))


async def test_the_sweep_reports_the_work_in_submodules(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    add_submodule(host, forge)
    granted, worktree = await host.prepared()
    (worktree.path / "part/new.py").write_text("new\n")
    await ended(host, granted.job)
    await host.world.store.update_job(granted.job.id, {"phase": None}, Guard(frozenset(JobStatus)))
    host.leases.drop(host.leases.require(granted.key))
    await host.sweeper.sweep()
    assert not worktree.path.exists()
    assert [line for line in await host.messages(granted.job) if "These submodules" in line]


async def ended(host: WorkerHost, job: Job, status: JobStatus = JobStatus.CANCELLED) -> None:
    changes: Any = {"status": status, "phase": Phase.CLEANING_UP}
    assert await host.world.store.update_job(job.id, changes, Guard(LIVE))


async def test_clean_up_salvages_unpublished_work(host: WorkerHost, work: Work) -> None:
    granted, worktree = work
    await ended(host, granted.job)
    for _ in range(2):
        await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    assert (await host.world.read(granted.job)).phase is None
    kept = await host.salvage.kept(OWNER, NAME, granted.job.id)
    assert kept is not None
    assert "+login" in (kept.patch or "")


async def test_clean_up_after_a_delivery_salvages_nothing(host: WorkerHost, work: Work) -> None:
    granted, worktree = work
    await publish(host, granted)
    await ended(host, granted.job, JobStatus.COMPLETED)
    await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    assert await host.salvage.kept(OWNER, NAME, granted.job.id) is None
    assert await host.world.store.kept_work(granted.job.id) is None


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
async def test_pushed_but_undelivered_work_is_salvaged(
    host: WorkerHost, work: Work, status: JobStatus
) -> None:
    """Its pull request was refused, or its branch was withdrawn."""
    granted, worktree = work
    await publish(host, granted)
    await ended(host, granted.job, status)
    for _ in range(2):
        await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert not worktree.path.exists()
    kept = await host.world.store.kept_work(granted.job.id)
    assert kept is not None
    assert (kept.host, kept.base_sha) == (HOST, worktree.base_sha)
    assert "login" in (kept.patch or "")
    notices = [line for line in await host.messages(granted.job) if "The work is kept" in line]
    assert len(notices) == 1


async def test_clean_up_without_files_succeeds(host: WorkerHost) -> None:
    granted = await host.grant()
    await host.run(host.workspaces.clean_up, CleanUpInput(UNKNOWN_ID))
    await ended(host, granted.job)
    await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert (await host.world.read(granted.job)).phase is None


async def test_clean_up_neither_needs_nor_drops_a_lease(host: WorkerHost, work: Work) -> None:
    granted, _ = work
    await ended(host, granted.job)
    await host.run(host.workspaces.clean_up, CleanUpInput(granted.job.id))
    assert host.leases.find(granted.key) is not None
    with pytest.raises(LeaseLost):
        await publish(host, Granted(granted.job, LeaseKey(granted.job.id, 5)))


async def test_a_lost_host_does_not_replace_newer_salvage(host: WorkerHost, work: Work) -> None:
    granted, worktree = work
    (worktree.path / "half.py").write_text("half\n")
    store, job = host.world.store, granted.job
    complete = KeptWork(job.id, "1" * 40, "2" * 40, "mill-2", "diff --git a/all b/all\n", utc_now())
    await store.update_job(job.id, {"host": "mill-2"}, Guard(LIVE))
    await ended(host, job, JobStatus.FAILED)
    await store.keep_work(complete)
    await store.update_job(job.id, {"phase": None}, Guard(frozenset(JobStatus)))
    host.leases.drop(host.leases.require(granted.key))
    await host.sweeper.sweep()
    assert not worktree.path.exists()
    kept = await store.kept_work(job.id)
    assert kept is not None
    assert kept.patch == complete.patch
    here = await host.salvage.kept(OWNER, NAME, job.id)
    assert here is not None
    assert "half" in (here.patch or "")


async def test_the_message_about_salvage_is_true(host: WorkerHost) -> None:
    keeping = SalvageRecords(host.world.store, HOST)
    code = await host.grant()
    task = await host.grant_task()
    for granted, patch in ((code, "diff"), (task, None)):
        await ended(host, granted.job, JobStatus.FAILED)
        await keeping.record(granted.job.id, Salvaged("1" * 40, "2" * 40, patch))
    [text] = [line for line in await host.messages(code.job) if "kept" in line]
    assert "/patch" in text
    assert '{"from": "publish"}' in text
    assert await host.messages(task.job) == ["The work is kept."]
