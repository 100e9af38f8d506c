from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude


async def push_failure(host: Host, sha: str, branch: str, expected: str | None) -> JobFailure:
    before = host.remote()
    with pytest.raises(JobFailure) as caught:
        await host.publishing.push(OWNER, NAME, sha, branch, expected)
    assert host.remote() == before
    return caught.value


async def test_push_is_idempotent(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await host.publish(worktree)
    await host.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert host.remote()["feature/x"] == sha


async def test_continued_branch_moves_forward(host: Host) -> None:
    old = host.github.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await host.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await host.publish(worktree)
    assert host.remote()["feature/x"] == sha
    assert worktree.expected_remote == old
    assert host.remote_log("feature/x") == ["Do it", "Theirs", "Initial commit"]


async def test_branch_moved_by_others_is_not_overwritten(host: Host) -> None:
    host.github.commit(OWNER, NAME, "feature/x", {"theirs": "1"}, "One")
    worktree = await host.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await host.commit(worktree)
    host.github.commit(OWNER, NAME, "feature/x", {"theirs": "2"}, "Two")
    failure = await push_failure(host, sha, "feature/x", worktree.expected_remote)
    assert failure.code is FailureCode.BRANCH_MOVED


async def test_branch_created_by_others_is_not_overwritten(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await host.commit(worktree)
    host.github.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    assert (await push_failure(host, sha, "feature/x", None)).code is FailureCode.BRANCH_MOVED


async def test_branch_deleted_by_others_is_not_created_again(host: Host) -> None:
    old = host.github.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await host.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await host.commit(worktree)
    host.github.repository(OWNER, NAME).bare.delete("feature/x")
    assert (await push_failure(host, sha, "feature/x", old)).code is FailureCode.BRANCH_MOVED


async def test_rewritten_history_is_not_pushed(host: Host) -> None:
    host.github.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await host.start("job", "feature/x")
    as_claude(worktree.path, "commit", "--amend", "-m", "Rewritten")
    sha = await host.commit(worktree)
    failure = await push_failure(host, sha, "feature/x", worktree.expected_remote)
    assert failure.code is FailureCode.BRANCH_MOVED
    assert "history was rewritten" in failure.message


async def test_git_replace_cannot_fake_a_fast_forward(host: Host) -> None:
    old = host.github.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await host.start("job", "feature/x")
    as_claude(worktree.path, "commit", "--amend", "-m", "Rewritten")
    sha = await host.commit(worktree)
    as_claude(worktree.path, "replace", "--graft", sha, old)
    assert (await push_failure(host, sha, "feature/x", old)).code is FailureCode.BRANCH_MOVED


async def test_branch_that_conflicts_with_a_new_branch_is_refused(host: Host) -> None:
    worktree = await host.start("job", "a/b")
    (worktree.path / "ours").write_text("x")
    sha = await host.commit(worktree)
    host.github.commit(OWNER, NAME, "a", {"theirs": "x"}, "Theirs")
    assert (await push_failure(host, sha, "a/b", None)).code is FailureCode.BRANCH_CONFLICT


@pytest.mark.parametrize("status", [None, 502])
async def test_push_with_a_lost_response_succeeds(host: Host, status: int | None) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    host.github.fail_next("git-receive-pack", status, after=True)
    await host.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert not host.github.pending_faults
    assert host.remote()["feature/x"] == sha


@pytest.mark.parametrize("status", [None, 502])
async def test_failed_push_can_be_retried(host: Host, status: int | None) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    host.github.fail_next("git-receive-pack*", status, times=9)
    assert (await push_failure(host, sha, "feature/x", None)).transient
    host.github.clear_faults()
    await host.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert host.remote()["feature/x"] == sha


async def test_unreachable_remote_keeps_the_error_of_the_push(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    host.github.fail_next("*", 503, times=9)
    failure = await push_failure(host, sha, "feature/x", None)
    assert failure.code is FailureCode.GITHUB_UNAVAILABLE


async def test_one_of_two_concurrent_pushes_wins(host: Host) -> None:
    shas = []
    for job_id in ("job1", "job2"):
        worktree = await host.start(job_id)
        (worktree.path / job_id).write_text("x")
        shas.append(await host.commit(worktree))
    results = await asyncio.gather(
        *(host.publishing.push(OWNER, NAME, sha, "same", None) for sha in shas),
        return_exceptions=True,
    )
    [lost] = [result for result in results if result is not None]
    assert isinstance(lost, JobFailure)
    assert lost.code is FailureCode.BRANCH_MOVED
    assert host.remote()["same"] == shas[results.index(None)]


async def test_branch_head_matches_the_full_name(host: Host) -> None:
    sha = host.github.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    host.github.commit(OWNER, NAME, "deep/refs/heads/x", {"a": "c"}, "Same ending")
    url = host.mirrors.mirror(OWNER, NAME).url
    assert await host.mirrors.network.branch_head(url, "x") == sha
    assert await host.mirrors.network.branch_head(url, "heads/x") is None


async def test_deleting_a_remote_branch_is_idempotent(host: Host) -> None:
    sha = host.github.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    await host.mirrors.fetch(OWNER, NAME)
    await host.publishing.delete_remote_branch(OWNER, NAME, "x", sha)
    assert "x" not in host.remote()
    await host.publishing.delete_remote_branch(OWNER, NAME, "x", sha)


async def test_branch_is_deleted_without_a_mirror(host: Host) -> None:
    sha = host.github.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    await host.publishing.delete_remote_branch(OWNER, NAME, "x", sha)
    assert "x" not in host.remote()


async def test_moved_remote_branch_is_not_deleted(host: Host) -> None:
    old = host.github.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    new = host.github.commit(OWNER, NAME, "x", {"a": "c"}, "X again")
    await host.mirrors.fetch(OWNER, NAME)
    with pytest.raises(JobFailure) as caught:
        await host.publishing.delete_remote_branch(OWNER, NAME, "x", old)
    assert caught.value.code is FailureCode.BRANCH_MOVED
    assert host.remote()["x"] == new


async def test_paths_can_contain_spaces_and_quotes(host: Host, tmp_path: Path) -> None:
    odd = Host(tmp_path / 'it\'s "odd" $HOME', host.github)
    worktree = await odd.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await odd.publish(worktree)
    assert host.remote()["feature/x"] == sha
    await odd.removal.remove(OWNER, NAME, "job")
    shutil.rmtree(odd.directory)


async def test_missing_commit_is_not_pushed(host: Host) -> None:
    for fetched in (False, True):
        if fetched:
            await host.mirrors.fetch(OWNER, NAME)
        failure = await push_failure(host, "1" * 40, "feature/x", host.remote()["main"])
        assert failure.code is FailureCode.GIT_FAILED
        assert "not on this host" in failure.message


async def test_push_succeeds_if_the_mirror_cannot_record_it(host: Host) -> None:
    host.github.commit(OWNER, NAME, "a", {"x": "x"}, "In the way")
    worktree = await host.start("job", "b")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    host.github.repository(OWNER, NAME).bare.delete("a")
    await host.publishing.push(OWNER, NAME, sha, "a/b", None)
    assert host.remote()["a/b"] == sha
    await host.mirrors.fetch(OWNER, NAME)
