from __future__ import annotations

import shutil

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Host, as_claude
from workspace.worktree.worktree import Worktree


def by_claude(worktree: Worktree, name: str, text: str = "x") -> str:
    """Commit one file as Claude, and return the sha."""
    (worktree.path / name).write_text(text)
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


async def test_all_kinds_of_changes_reach_the_remote(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "README.md").unlink()
    (worktree.path / "src/app.py").write_text("print('changed')\n")
    (worktree.path / 'f\u00fcr \u4f60 "q".txt').write_text("new")
    (worktree.path / "noise.log").write_text("ignored")
    (worktree.path / "run.sh").write_text("#!/bin/sh\n")
    (worktree.path / "run.sh").chmod(0o755)
    (worktree.path / "link").symlink_to("run.sh")
    sha = await host.publish(worktree, "Change things\n\nFor reasons.")
    assert host.remote()["feature/x"] == sha
    listed = as_claude(
        host.github.root / OWNER / f"{NAME}.git", "-c", "core.quotePath=off", "ls-tree", "-r", sha
    )
    modes = {line.split("\t")[1]: line[:6] for line in listed.splitlines()}
    assert modes == {
        ".gitignore": "100644",
        '"f\u00fcr \u4f60 \\"q\\".txt"': "100644",
        "link": "120000",
        "run.sh": "100755",
        "src/app.py": "100644",
    }
    [entry, _] = host.github.log(OWNER, NAME, "feature/x")
    assert (entry.subject, entry.author) == ("Change things", CLAUDE.name)


async def test_nothing_to_commit_makes_no_commit(host: Host) -> None:
    worktree = await host.start("job")
    await host.publishing.commit_all(worktree, "Nothing", CLAUDE)
    head = await host.publishing.head(worktree)
    assert (head.sha, head.commits_ahead, head.files_changed) == (worktree.base_sha, 0, 0)


async def test_committing_twice_makes_one_commit(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    first = await host.commit(worktree)
    assert await host.commit(worktree) == first
    head = await host.publishing.head(worktree)
    assert (head.commits_ahead, head.files_changed) == (1, 1)


@pytest.mark.parametrize(
    "message", ["#12 fix", "-m evil", "\u4f60\u597d\n\nbody", "a\0b", "lone \ud800"]
)
async def test_any_title_becomes_the_commit_message(host: Host, message: str) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    await host.commit(worktree, message)
    wanted = message.replace("\0", "").encode("utf-8", "replace").decode().split("\n")[0]
    assert as_claude(worktree.path, "log", "-1", "--format=%s") == wanted


@pytest.mark.parametrize("message", ["", " \n "])
async def test_empty_title_gets_a_default_message(host: Host, message: str) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    await host.commit(worktree, message)
    assert as_claude(worktree.path, "log", "-1", "--format=%s") == "Work of job job"


async def test_commits_by_claude_are_published(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    by_claude(worktree, "one")
    by_claude(worktree, "two")
    (worktree.path / "three").write_text("not committed")
    sha = await host.publish(worktree, "The rest")
    head = await host.publishing.head(worktree)
    assert (head.sha, head.commits_ahead, head.files_changed) == (sha, 3, 3)
    assert host.remote_log("feature/x") == [
        "The rest", "Claude: two", "Claude: one", "Initial commit",
    ]  # fmt: skip


async def test_branch_is_published_if_an_older_commit_is_checked_out(host: Host) -> None:
    worktree = await host.start("job")
    sha = by_claude(worktree, "one")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    assert await host.commit(worktree) == sha


async def test_commits_on_a_branch_that_claude_created_are_published(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "checkout", "-b", "claude-made-this")
    sha = by_claude(worktree, "one")
    assert await host.commit(worktree) == sha


async def test_git_replace_does_not_change_the_commit_count(host: Host) -> None:
    worktree = await host.start("job")
    by_claude(worktree, "one")
    sha = by_claude(worktree, "two")
    as_claude(worktree.path, "replace", "--graft", sha, worktree.base_sha)
    head = await host.publishing.head(worktree)
    assert (head.sha, head.commits_ahead) == (sha, 2)


async def test_dot_git_file_is_not_used(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / ".git").unlink()
    as_claude(worktree.path, "init", "--quiet")
    (worktree.path / "new").write_text("x")
    sha = await host.publish(worktree)
    assert host.remote_log("feature/x") == ["Do it", "Initial commit"]
    assert host.remote()["feature/x"] == sha


async def test_stale_git_locks_are_removed(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    for name in ("index.lock", "HEAD.lock"):
        (worktree.git_dir / name).touch()
    assert await host.commit(worktree) != worktree.base_sha


async def test_new_directory_with_its_own_repository_is_committed(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    app = worktree.path / "app"
    (app / "src").mkdir(parents=True)
    as_claude(app, "init", "--quiet")
    (app / ".gitignore").write_text("build\n")
    (app / "src" / "m\u00e4in.py").write_text("x")
    (app / "build").write_text("ignored")
    (app / "current").symlink_to("src")
    sha = await host.publish(worktree)
    names = as_claude(
        host.mirror_path, "-c", "core.quotePath=off", "ls-tree", "-r", "--name-only", sha, "app/"
    )
    assert names.split("\n") == ["app/.gitignore", "app/current", "app/src/m\u00e4in.py"]
    (app / "src" / "more.py").write_text("y")
    await host.commit(worktree)
    assert (await host.publishing.head(worktree)).files_changed == 4


async def test_clone_inside_the_worktree_is_not_committed(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "clone", "--quiet", str(host.mirror_path), "reference")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    changed = as_claude(host.mirror_path, "diff", "--name-only", worktree.base_sha, sha)
    assert changed == "new"


async def test_git_worktree_inside_the_worktree_is_not_committed(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "worktree", "add", "--quiet", "base-copy", "origin/main")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    assert as_claude(host.mirror_path, "diff", "--name-only", worktree.base_sha, sha) == "new"
    await host.removal.remove(OWNER, NAME, "job")
    await host.start("job2")
    assert not (host.mirror_path / "worktrees" / "base-copy").exists()


def start_merge(worktree: Worktree) -> None:
    """Leave a merge with a conflict in README.md."""
    as_claude(worktree.path, "checkout", "-q", "-b", "side")
    by_claude(worktree, "README.md", "side\n")
    as_claude(worktree.path, "checkout", "-q", worktree.branch or "")
    by_claude(worktree, "README.md", "ours\n")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "side")


async def test_resolved_merge_is_committed(host: Host) -> None:
    worktree = await host.start("job")
    start_merge(worktree)
    (worktree.path / "README.md").write_text("ours\n")
    sha = await host.commit(worktree, "Merge it")
    assert len(as_claude(worktree.path, "rev-list", "--parents", "-1", sha).split()) == 3
    assert as_claude(worktree.path, "status", "--porcelain") == ""


async def test_merge_with_conflicts_is_not_published(host: Host) -> None:
    worktree = await host.start("job")
    start_merge(worktree)
    with pytest.raises(JobFailure, match=r"conflicts.*README\.md"):
        await host.commit(worktree)


async def test_file_with_conflict_markers_but_no_merge_is_committed(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "manual.md").write_text("<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    assert await host.commit(worktree) != worktree.base_sha


async def test_unfinished_rebase_is_not_published(host: Host) -> None:
    worktree = await host.start("job")
    start_merge(worktree)
    as_claude(worktree.path, "merge", "--abort")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "rebase", "side")
    with pytest.raises(JobFailure, match="left a rebase unfinished") as caught:
        await host.commit(worktree)
    assert caught.value.code is FailureCode.GIT_FAILED


async def test_deleted_worktree_cannot_be_committed(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    await host.commit(worktree)
    shutil.rmtree(worktree.path)
    assert (await host.publishing.head(worktree)).commits_ahead == 1
    with pytest.raises(JobFailure, match="worktree is gone"):
        await host.commit(worktree)
