from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude


async def refused(room: Room, sha: str, branch: str, expected: str | None) -> JobFailure:
    before = room.remote()
    with pytest.raises(JobFailure) as caught:
        await room.publishing.push(OWNER, NAME, sha, branch, expected)
    assert room.remote() == before
    return caught.value


async def test_pushing_twice_is_pushing_once(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await room.publish(worktree)
    await room.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert room.remote()["feature/x"] == sha


async def test_a_continued_branch_moves_forward(room: Room) -> None:
    old = room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await room.publish(worktree)
    assert room.remote()["feature/x"] == sha
    assert worktree.expected_remote == old
    assert room.remote_log("feature/x") == ["Do it", "Theirs", "Initial commit"]


async def test_a_branch_somebody_else_moved_is_not_overwritten(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "1"}, "One")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await room.commit(worktree)
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "2"}, "Two")
    found = await refused(room, sha, "feature/x", worktree.expected_remote)
    assert found.code is FailureCode.BRANCH_MOVED


async def test_a_branch_somebody_else_made_is_not_overwritten(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await room.commit(worktree)
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    assert (await refused(room, sha, "feature/x", None)).code is FailureCode.BRANCH_MOVED


async def test_a_branch_somebody_else_deleted_does_not_come_back(room: Room) -> None:
    old = room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await room.commit(worktree)
    room.forge.repository(OWNER, NAME).bare.delete("feature/x")
    assert (await refused(room, sha, "feature/x", old)).code is FailureCode.BRANCH_MOVED


async def test_rewritten_history_is_not_pushed(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    as_claude(worktree.path, "commit", "--amend", "-m", "Rewritten")
    sha = await room.commit(worktree)
    found = await refused(room, sha, "feature/x", worktree.expected_remote)
    assert found.code is FailureCode.BRANCH_MOVED
    assert "history was rewritten" in found.message


async def test_replaced_history_does_not_count_as_containing_the_remote_s(room: Room) -> None:
    old = room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    as_claude(worktree.path, "commit", "--amend", "-m", "Rewritten")
    sha = await room.commit(worktree)
    as_claude(worktree.path, "replace", "--graft", sha, old)
    assert (await refused(room, sha, "feature/x", old)).code is FailureCode.BRANCH_MOVED


async def test_a_name_the_remote_cannot_have_any_more(room: Room) -> None:
    worktree = await room.start("job", "a/b")
    (worktree.path / "ours").write_text("x")
    sha = await room.commit(worktree)
    room.forge.commit(OWNER, NAME, "a", {"theirs": "x"}, "Theirs")
    assert (await refused(room, sha, "a/b", None)).code is FailureCode.BRANCH_CONFLICT


@pytest.mark.parametrize("status", [None, 502])
async def test_an_answer_that_got_lost_counts_as_pushed(room: Room, status: int | None) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    room.forge.fail_next("git-receive-pack", status, after=True)
    await room.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert not room.forge.pending_faults
    assert room.remote()["feature/x"] == sha


@pytest.mark.parametrize("status", [None, 502])
async def test_a_push_that_did_not_arrive_may_be_tried_again(
    room: Room, status: int | None
) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    room.forge.fail_next("git-receive-pack*", status, times=9)
    assert (await refused(room, sha, "feature/x", None)).transient
    room.forge.clear_faults()
    await room.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert room.remote()["feature/x"] == sha


async def test_an_unreachable_remote_keeps_the_reason_of_the_push(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    room.forge.fail_next("*", 503, times=9)
    found = await refused(room, sha, "feature/x", None)
    assert found.code is FailureCode.GITHUB_UNAVAILABLE


async def test_two_pushes_at_once_end_as_one_branch(room: Room) -> None:
    shas = []
    for job_id in ("job1", "job2"):
        worktree = await room.start(job_id)
        (worktree.path / job_id).write_text("x")
        shas.append(await room.commit(worktree))
    results = await asyncio.gather(
        *(room.publishing.push(OWNER, NAME, sha, "same", None) for sha in shas),
        return_exceptions=True,
    )
    [lost] = [result for result in results if result is not None]
    assert isinstance(lost, JobFailure)
    assert lost.code is FailureCode.BRANCH_MOVED
    assert room.remote()["same"] == shas[results.index(None)]


async def test_the_head_of_a_remote_branch(room: Room) -> None:
    sha = room.forge.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    room.forge.commit(OWNER, NAME, "deep/refs/heads/x", {"a": "c"}, "Same ending")
    url = room.mirrors.mirror(OWNER, NAME).url
    assert await room.mirrors.network.branch_head(url, "x") == sha
    assert await room.mirrors.network.branch_head(url, "heads/x") is None


async def test_a_remote_branch_is_deleted_once(room: Room) -> None:
    sha = room.forge.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    await room.mirrors.fetch(OWNER, NAME)
    await room.publishing.delete_remote_branch(OWNER, NAME, "x", sha)
    assert "x" not in room.remote()
    await room.publishing.delete_remote_branch(OWNER, NAME, "x", sha)


async def test_a_machine_without_the_mirror_can_delete_too(room: Room) -> None:
    sha = room.forge.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    await room.publishing.delete_remote_branch(OWNER, NAME, "x", sha)
    assert "x" not in room.remote()


async def test_a_remote_branch_that_moved_is_not_deleted(room: Room) -> None:
    old = room.forge.commit(OWNER, NAME, "x", {"a": "b"}, "X")
    new = room.forge.commit(OWNER, NAME, "x", {"a": "c"}, "X again")
    await room.mirrors.fetch(OWNER, NAME)
    with pytest.raises(JobFailure) as caught:
        await room.publishing.delete_remote_branch(OWNER, NAME, "x", old)
    assert caught.value.code is FailureCode.BRANCH_MOVED
    assert room.remote()["x"] == new


async def test_a_worktree_on_paths_with_spaces_and_quotes(room: Room, tmp_path: Path) -> None:
    odd = Room(tmp_path / 'it\'s "odd" $HOME', room.forge)
    worktree = await odd.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await odd.publish(worktree)
    assert room.remote()["feature/x"] == sha
    await odd.removal.remove(OWNER, NAME, "job")
    shutil.rmtree(odd.directory)


async def test_a_commit_that_is_not_on_this_machine(room: Room) -> None:
    for fetched in (False, True):
        if fetched:
            await room.mirrors.fetch(OWNER, NAME)
        found = await refused(room, "1" * 40, "feature/x", room.remote()["main"])
        assert found.code is FailureCode.GIT_FAILED
        assert "not on this host" in found.message


async def test_a_push_counts_even_if_the_mirror_cannot_note_it(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "a", {"x": "x"}, "In the way")
    worktree = await room.start("job", "b")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    room.forge.repository(OWNER, NAME).bare.delete("a")
    await room.publishing.push(OWNER, NAME, sha, "a/b", None)
    assert room.remote()["a/b"] == sha
    await room.mirrors.fetch(OWNER, NAME)
