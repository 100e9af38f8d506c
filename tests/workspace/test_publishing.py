from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.worktree import Worktree


def remote_log(room: Room, branch: str) -> list[str]:
    return [entry.subject for entry in room.forge.log(OWNER, NAME, branch)]


def by_claude(worktree: Worktree, name: str, text: str = "x") -> str:
    """Commit one file the way Claude does, and return the sha."""
    (worktree.path / name).write_text(text)
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


async def committed(room: Room, worktree: Worktree, message: str = "Do it") -> str:
    await room.publishing.commit_all(worktree, message, CLAUDE)
    return (await room.publishing.head(worktree)).sha


async def refused(room: Room, sha: str, branch: str, expected: str | None) -> JobFailure:
    before = room.remote()
    with pytest.raises(JobFailure) as caught:
        await room.publishing.push(OWNER, NAME, sha, branch, expected)
    assert room.remote() == before
    return caught.value


async def test_all_kinds_of_changes_reach_the_remote(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "README.md").unlink()
    (worktree.path / "src/app.py").write_text("print('changed')\n")
    (worktree.path / 'f\u00fcr \u4f60 "q".txt').write_text("new")
    (worktree.path / "noise.log").write_text("ignored")
    (worktree.path / "run.sh").write_text("#!/bin/sh\n")
    (worktree.path / "run.sh").chmod(0o755)
    (worktree.path / "link").symlink_to("run.sh")
    sha = await room.publish(worktree, "Change things\n\nFor reasons.")
    assert room.remote()["feature/x"] == sha
    listed = as_claude(
        room.forge.root / OWNER / f"{NAME}.git", "-c", "core.quotePath=off", "ls-tree", "-r", sha
    )
    modes = {line.split("\t")[1]: line[:6] for line in listed.splitlines()}
    assert modes == {
        ".gitignore": "100644",
        '"f\u00fcr \u4f60 \\"q\\".txt"': "100644",
        "link": "120000",
        "run.sh": "100755",
        "src/app.py": "100644",
    }
    [entry, _] = room.forge.log(OWNER, NAME, "feature/x")
    assert (entry.subject, entry.author) == ("Change things", CLAUDE.name)


async def test_nothing_to_commit_makes_no_commit(room: Room) -> None:
    worktree = await room.start("job")
    await room.publishing.commit_all(worktree, "Nothing", CLAUDE)
    head = await room.publishing.head(worktree)
    assert (head.sha, head.commits_ahead, head.files_changed) == (worktree.base_sha, 0, 0)


async def test_committing_twice_makes_one_commit(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    first = await committed(room, worktree)
    assert await committed(room, worktree) == first
    head = await room.publishing.head(worktree)
    assert (head.commits_ahead, head.files_changed) == (1, 1)


@pytest.mark.parametrize(
    "message", ["#12 fix", "-m evil", "\u4f60\u597d\n\nbody", "a\0b", "lone \ud800"]
)
async def test_any_title_is_a_message(room: Room, message: str) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await committed(room, worktree, message)
    wanted = message.replace("\0", "").encode("utf-8", "replace").decode().split("\n")[0]
    assert as_claude(worktree.path, "log", "-1", "--format=%s") == wanted


@pytest.mark.parametrize("message", ["", " \n "])
async def test_no_title_is_no_obstacle(room: Room, message: str) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await committed(room, worktree, message)
    assert as_claude(worktree.path, "log", "-1", "--format=%s") == "Work of job job"


async def test_commits_claude_made_itself_count(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    by_claude(worktree, "one")
    by_claude(worktree, "two")
    (worktree.path / "three").write_text("not committed")
    sha = await room.publish(worktree, "The rest")
    head = await room.publishing.head(worktree)
    assert (head.sha, head.commits_ahead, head.files_changed) == (sha, 3, 3)
    assert remote_log(room, "feature/x") == [
        "The rest", "Claude: two", "Claude: one", "Initial commit",
    ]  # fmt: skip


async def test_commits_on_the_branch_count_when_claude_looks_elsewhere(room: Room) -> None:
    worktree = await room.start("job")
    sha = by_claude(worktree, "one")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    assert await committed(room, worktree) == sha


async def test_commits_on_another_branch_of_claude_s_count(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "checkout", "-b", "claude-made-this")
    sha = by_claude(worktree, "one")
    assert await committed(room, worktree) == sha


async def test_the_dot_git_file_does_not_matter(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / ".git").unlink()
    as_claude(worktree.path, "init", "--quiet")
    (worktree.path / "new").write_text("x")
    sha = await room.publish(worktree)
    assert remote_log(room, "feature/x") == ["Do it", "Initial commit"]
    assert room.remote()["feature/x"] == sha


async def test_locks_of_a_killed_claude_are_no_obstacle(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    for name in ("index.lock", "HEAD.lock"):
        (worktree.git_dir / name).touch()
    assert await committed(room, worktree) != worktree.base_sha


async def test_a_new_component_with_a_repository_of_its_own_is_committed(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    app = worktree.path / "app"
    (app / "src").mkdir(parents=True)
    as_claude(app, "init", "--quiet")
    (app / ".gitignore").write_text("build\n")
    (app / "src" / "m\u00e4in.py").write_text("x")
    (app / "build").write_text("ignored")
    (app / "current").symlink_to("src")
    sha = await room.publish(worktree)
    names = as_claude(
        room.mirror_path, "-c", "core.quotePath=off", "ls-tree", "-r", "--name-only", sha, "app/"
    )
    assert names.split("\n") == ["app/.gitignore", "app/current", "app/src/m\u00e4in.py"]
    (app / "src" / "more.py").write_text("y")
    await committed(room, worktree)
    assert (await room.publishing.head(worktree)).files_changed == 4


async def test_a_clone_inside_the_worktree_is_left_out(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "clone", "--quiet", str(room.mirror_path), "reference")
    (worktree.path / "new").write_text("x")
    sha = await committed(room, worktree)
    changed = as_claude(room.mirror_path, "diff", "--name-only", worktree.base_sha, sha)
    assert changed == "new"


def start_merge(worktree: Worktree) -> None:
    """Leave a merge with a conflict in README.md."""
    as_claude(worktree.path, "checkout", "-q", "-b", "side")
    by_claude(worktree, "README.md", "side\n")
    as_claude(worktree.path, "checkout", "-q", worktree.branch or "")
    by_claude(worktree, "README.md", "ours\n")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "side")


async def test_a_merge_resolved_but_not_concluded_is_concluded(room: Room) -> None:
    worktree = await room.start("job")
    start_merge(worktree)
    (worktree.path / "README.md").write_text("ours\n")
    sha = await committed(room, worktree, "Merge it")
    assert len(as_claude(worktree.path, "rev-list", "--parents", "-1", sha).split()) == 3
    assert as_claude(worktree.path, "status", "--porcelain") == ""


async def test_a_merge_with_conflicts_is_not_published(room: Room) -> None:
    worktree = await room.start("job")
    start_merge(worktree)
    with pytest.raises(JobFailure, match=r"conflicts.*README\.md"):
        await committed(room, worktree)


async def test_a_file_that_only_shows_conflict_markers_is_fine(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "manual.md").write_text("<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    assert await committed(room, worktree) != worktree.base_sha


async def test_an_unfinished_rebase_is_not_published(room: Room) -> None:
    worktree = await room.start("job")
    start_merge(worktree)
    as_claude(worktree.path, "merge", "--abort")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "rebase", "side")
    with pytest.raises(JobFailure, match="rebase was left unfinished") as caught:
        await committed(room, worktree)
    assert caught.value.code is FailureCode.GIT_FAILED


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
    assert remote_log(room, "feature/x") == ["Do it", "Theirs", "Initial commit"]


async def test_a_branch_somebody_else_moved_is_not_overwritten(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "1"}, "One")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await committed(room, worktree)
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "2"}, "Two")
    found = await refused(room, sha, "feature/x", worktree.expected_remote)
    assert found.code is FailureCode.BRANCH_MOVED


async def test_a_branch_somebody_else_made_is_not_overwritten(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await committed(room, worktree)
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    assert (await refused(room, sha, "feature/x", None)).code is FailureCode.BRANCH_MOVED


async def test_a_branch_somebody_else_deleted_does_not_come_back(room: Room) -> None:
    old = room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "ours").write_text("x")
    sha = await committed(room, worktree)
    room.forge.repository(OWNER, NAME).bare.delete("feature/x")
    assert (await refused(room, sha, "feature/x", old)).code is FailureCode.BRANCH_MOVED


async def test_rewritten_history_is_not_pushed(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    as_claude(worktree.path, "commit", "--amend", "-m", "Rewritten")
    sha = await committed(room, worktree)
    found = await refused(room, sha, "feature/x", worktree.expected_remote)
    assert found.code is FailureCode.BRANCH_MOVED
    assert "history was rewritten" in found.message


async def test_replaced_history_does_not_count_as_containing_the_remote_s(room: Room) -> None:
    old = room.forge.commit(OWNER, NAME, "feature/x", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job", "feature/x")
    as_claude(worktree.path, "commit", "--amend", "-m", "Rewritten")
    sha = await committed(room, worktree)
    as_claude(worktree.path, "replace", "--graft", sha, old)
    assert (await refused(room, sha, "feature/x", old)).code is FailureCode.BRANCH_MOVED


async def test_a_name_the_remote_cannot_have_any_more(room: Room) -> None:
    worktree = await room.start("job", "a/b")
    (worktree.path / "ours").write_text("x")
    sha = await committed(room, worktree)
    room.forge.commit(OWNER, NAME, "a", {"theirs": "x"}, "Theirs")
    assert (await refused(room, sha, "a/b", None)).code is FailureCode.BRANCH_CONFLICT


@pytest.mark.parametrize("status", [None, 502])
async def test_an_answer_that_got_lost_counts_as_pushed(room: Room, status: int | None) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await committed(room, worktree)
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
    sha = await committed(room, worktree)
    room.forge.fail_next("git-receive-pack*", status, times=9)
    assert (await refused(room, sha, "feature/x", None)).transient
    room.forge.clear_faults()
    await room.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert room.remote()["feature/x"] == sha


async def test_an_unreachable_remote_keeps_the_reason_of_the_push(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await committed(room, worktree)
    room.forge.fail_next("*", 503, times=9)
    found = await refused(room, sha, "feature/x", None)
    assert found.code is FailureCode.GITHUB_UNAVAILABLE


async def test_two_pushes_at_once_end_as_one_branch(room: Room) -> None:
    shas = []
    for job_id in ("job1", "job2"):
        worktree = await room.start(job_id)
        (worktree.path / job_id).write_text("x")
        shas.append(await committed(room, worktree))
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
    assert await room.publishing.remote_head(OWNER, NAME, "x") == sha
    assert await room.publishing.remote_head(OWNER, NAME, "heads/x") is None


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


async def test_a_worktree_that_is_gone_is_said_to_be_gone(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await committed(room, worktree)
    shutil.rmtree(worktree.path)
    assert (await room.publishing.head(worktree)).commits_ahead == 1
    with pytest.raises(JobFailure, match="worktree is gone"):
        await committed(room, worktree)
