"""Claude's own commits: the published ones, and the messages about the others."""

from __future__ import annotations

from activities.workspaces import CleanUpInput, PublishInput, PublishResult
from domain.jobs import LIVE, JobStatus, RetryFrom
from fakes.github.server import FakeGitHub
from store.protocol import Guard, JobChanges
from tests.integration.activities.worker_host import NAME, OWNER, Granted, WorkerHost
from tests.integration.workspace.conftest import as_claude
from workspace.worktree.worktree import Worktree


async def publish(host: WorkerHost, granted: Granted) -> PublishResult:
    return await host.run(host.workspaces.publish, PublishInput(granted.key))


def commit(worktree: Worktree, *options: str) -> str:
    identity = ("-c", "user.name=Claude", "-c", "user.email=claude@example.invalid")
    as_claude(worktree.path, *identity, "commit", "--message", "By Claude", *options)
    return as_claude(worktree.path, "rev-parse", "HEAD")


async def test_a_merge_that_changes_no_file_is_published_on_a_branch_that_was_there(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"README.md": "ours"}, "Ours")
    forge.commit(OWNER, NAME, "main", {"README.md": "theirs"}, "Theirs")
    granted, worktree = await host.prepared(branch_name="feature/old")
    as_claude(worktree.path, "merge", "--strategy=ours", "--no-commit", "origin/main")
    merge = commit(worktree)
    assert await publish(host, granted) == PublishResult(merge)
    assert forge.branches(OWNER, NAME)["feature/old"] == merge
    row = await host.world.read(granted.job)
    assert (row.head_sha, row.files_changed) == (merge, 0)


async def test_a_new_branch_without_a_change_is_not_published(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    granted, worktree = await host.prepared()
    commit(worktree, "--allow-empty")
    assert await publish(host, granted) == PublishResult(None)
    assert granted.job.branch_name not in forge.branches(OWNER, NAME)


async def test_a_salvaged_merge_is_published(host: WorkerHost, forge: FakeGitHub) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"README.md": "ours"}, "Ours")
    first, worktree = await host.prepared(branch_name="feature/old")
    commit(worktree, "--allow-empty")
    failed: JobChanges = {"status": JobStatus.FAILED}
    assert await host.world.store.update_job(first.job.id, failed, Guard(LIVE))
    await host.workspaces.clean_up(CleanUpInput(first.job.id))
    retry, _ = await host.prepared(
        branch_name="again", retry_of=first.job.id, retry_from=RetryFrom.PUBLISH
    )
    published = await publish(host, retry)
    assert forge.branches(OWNER, NAME)["again"] == published.sha


async def test_a_branch_that_claude_left_is_named(host: WorkerHost, forge: FakeGitHub) -> None:
    granted, worktree = await host.prepared()
    (worktree.path / "one").write_text("one")
    as_claude(worktree.path, "add", "one")
    left = commit(worktree)
    as_claude(worktree.path, "checkout", "-b", "another", "HEAD~1")
    (worktree.path / "two").write_text("two")
    as_claude(worktree.path, "add", "two")
    taken = commit(worktree)
    for _ in range(2):
        assert await publish(host, granted) == PublishResult(taken)
    messages = [line for line in await host.messages(granted.job) if left[:12] in line]
    assert len(messages) == 1
    await host.workspaces.clean_up(CleanUpInput(granted.job.id))
    ref = f"refs/orchestrator/salvage/{granted.job.id}"
    assert ref in messages[0]
    kept = as_claude(host.mirrors.path(OWNER, NAME), "log", "-1", "--format=%P", ref)
    assert left in kept.split()


async def test_a_branch_that_claude_created_and_left_is_salvaged_and_named(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    other, _ = await host.prepared()
    granted, worktree = await host.prepared()
    as_claude(worktree.path, "checkout", "-b", "attempt")
    (worktree.path / "one").write_text("one")
    as_claude(worktree.path, "add", "one")
    left = commit(worktree)
    as_claude(worktree.path, "checkout", granted.job.branch_name)
    assert await publish(host, granted) == PublishResult(None)
    assert await publish(host, other) == PublishResult(None)
    (messages,) = [line for line in await host.messages(granted.job) if "attempt" in line]
    assert f"attempt at {left[:12]}" in messages
    assert not [line for line in await host.messages(other.job) if "attempt" in line]
    for each in (granted, other):
        await host.workspaces.clean_up(CleanUpInput(each.job.id))
    mirror = host.mirrors.path(OWNER, NAME)
    ref = f"refs/orchestrator/salvage/{granted.job.id}"
    assert left in as_claude(mirror, "log", "-1", "--format=%P", ref).split()
    assert as_claude(mirror, "for-each-ref", f"refs/orchestrator/salvage/{other.job.id}") == ""
