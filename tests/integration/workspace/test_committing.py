from __future__ import annotations

import shutil

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.worktree.worktree import Worktree


def by_claude(worktree: Worktree, name: str, text: str = "x") -> str:
    """Commit one file the way Claude does, and return the sha."""
    (worktree.path / name).write_text(text)
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


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
    first = await room.commit(worktree)
    assert await room.commit(worktree) == first
    head = await room.publishing.head(worktree)
    assert (head.commits_ahead, head.files_changed) == (1, 1)


@pytest.mark.parametrize(
    "message", ["#12 fix", "-m evil", "\u4f60\u597d\n\nbody", "a\0b", "lone \ud800"]
)
async def test_any_title_is_a_message(room: Room, message: str) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await room.commit(worktree, message)
    wanted = message.replace("\0", "").encode("utf-8", "replace").decode().split("\n")[0]
    assert as_claude(worktree.path, "log", "-1", "--format=%s") == wanted


@pytest.mark.parametrize("message", ["", " \n "])
async def test_no_title_is_no_obstacle(room: Room, message: str) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await room.commit(worktree, message)
    assert as_claude(worktree.path, "log", "-1", "--format=%s") == "Work of job job"


async def test_commits_claude_made_itself_count(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    by_claude(worktree, "one")
    by_claude(worktree, "two")
    (worktree.path / "three").write_text("not committed")
    sha = await room.publish(worktree, "The rest")
    head = await room.publishing.head(worktree)
    assert (head.sha, head.commits_ahead, head.files_changed) == (sha, 3, 3)
    assert room.remote_log("feature/x") == [
        "The rest", "Claude: two", "Claude: one", "Initial commit",
    ]  # fmt: skip


async def test_commits_on_the_branch_count_when_claude_looks_elsewhere(room: Room) -> None:
    worktree = await room.start("job")
    sha = by_claude(worktree, "one")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    assert await room.commit(worktree) == sha


async def test_commits_on_another_branch_of_claude_s_count(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "checkout", "-b", "claude-made-this")
    sha = by_claude(worktree, "one")
    assert await room.commit(worktree) == sha


async def test_replaced_commits_do_not_change_the_count(room: Room) -> None:
    worktree = await room.start("job")
    by_claude(worktree, "one")
    sha = by_claude(worktree, "two")
    as_claude(worktree.path, "replace", "--graft", sha, worktree.base_sha)
    head = await room.publishing.head(worktree)
    assert (head.sha, head.commits_ahead) == (sha, 2)


async def test_the_dot_git_file_does_not_matter(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / ".git").unlink()
    as_claude(worktree.path, "init", "--quiet")
    (worktree.path / "new").write_text("x")
    sha = await room.publish(worktree)
    assert room.remote_log("feature/x") == ["Do it", "Initial commit"]
    assert room.remote()["feature/x"] == sha


async def test_locks_of_a_killed_claude_are_no_obstacle(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    for name in ("index.lock", "HEAD.lock"):
        (worktree.git_dir / name).touch()
    assert await room.commit(worktree) != worktree.base_sha


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
    await room.commit(worktree)
    assert (await room.publishing.head(worktree)).files_changed == 4


async def test_a_clone_inside_the_worktree_is_left_out(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "clone", "--quiet", str(room.mirror_path), "reference")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    changed = as_claude(room.mirror_path, "diff", "--name-only", worktree.base_sha, sha)
    assert changed == "new"


async def test_another_worktree_inside_the_worktree_is_left_out(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "worktree", "add", "--quiet", "base-copy", "origin/main")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    assert as_claude(room.mirror_path, "diff", "--name-only", worktree.base_sha, sha) == "new"
    await room.removal.remove(OWNER, NAME, "job")
    await room.start("job2")
    assert not (room.mirror_path / "worktrees" / "base-copy").exists()


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
    sha = await room.commit(worktree, "Merge it")
    assert len(as_claude(worktree.path, "rev-list", "--parents", "-1", sha).split()) == 3
    assert as_claude(worktree.path, "status", "--porcelain") == ""


async def test_a_merge_with_conflicts_is_not_published(room: Room) -> None:
    worktree = await room.start("job")
    start_merge(worktree)
    with pytest.raises(JobFailure, match=r"conflicts.*README\.md"):
        await room.commit(worktree)


async def test_a_file_that_only_shows_conflict_markers_is_fine(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "manual.md").write_text("<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    assert await room.commit(worktree) != worktree.base_sha


async def test_an_unfinished_rebase_is_not_published(room: Room) -> None:
    worktree = await room.start("job")
    start_merge(worktree)
    as_claude(worktree.path, "merge", "--abort")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "rebase", "side")
    with pytest.raises(JobFailure, match="left a rebase unfinished") as caught:
        await room.commit(worktree)
    assert caught.value.code is FailureCode.GIT_FAILED


async def test_a_worktree_that_is_gone_is_said_to_be_gone(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await room.commit(worktree)
    shutil.rmtree(worktree.path)
    assert (await room.publishing.head(worktree)).commits_ahead == 1
    with pytest.raises(JobFailure, match="worktree is gone"):
        await room.commit(worktree)
