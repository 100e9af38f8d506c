"""Worktrees that a power cut, a kill or a user has damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.integration.workspace.conftest import FILES, NAME, OWNER, Host, as_claude
from workspace.worktree.worktree import Worktree

Damage = Callable[[Worktree], None]


def no_dot_git(worktree: Worktree) -> None:
    (worktree.path / ".git").unlink()


def empty_dot_git(worktree: Worktree) -> None:
    (worktree.path / ".git").write_bytes(b"")


def misleading_dot_git(worktree: Worktree) -> None:
    (worktree.path / ".git").write_text("gitdir: /nonexistent\n")


def empty_head(worktree: Worktree) -> None:
    (worktree.git_dir / "HEAD").write_bytes(b"")


def garbage_head(worktree: Worktree) -> None:
    (worktree.git_dir / "HEAD").write_bytes(b"\0\xff" * 20)


def no_head(worktree: Worktree) -> None:
    (worktree.git_dir / "HEAD").unlink()


def empty_settings(worktree: Worktree) -> None:
    for name in ("config", "objects/info/alternates"):
        (worktree.git_dir / name).write_bytes(b"")


def no_settings(worktree: Worktree) -> None:
    for name in ("config", "objects/info/alternates"):
        (worktree.git_dir / name).unlink()


def locks(worktree: Worktree) -> None:
    for name in ("index.lock", "HEAD.lock"):
        (worktree.git_dir / name).touch()


def no_index(worktree: Worktree) -> None:
    (worktree.git_dir / "index").unlink()


def empty_index(worktree: Worktree) -> None:
    (worktree.git_dir / "index").write_bytes(b"")


def garbage_index(worktree: Worktree) -> None:
    (worktree.git_dir / "index").write_bytes(b"DIRC" + b"\0" * 200)


def empty_branch(worktree: Worktree) -> None:
    (worktree.git_dir / "refs/heads/feature/job").write_bytes(b"")


POINTERS = [
    no_dot_git, empty_dot_git, misleading_dot_git, no_head, empty_head, garbage_head, locks,
]  # fmt: skip
SETTINGS = [empty_settings, no_settings]
INDEXES = [no_index, empty_index, garbage_index]


async def start_with_work(host: Host) -> Worktree:
    worktree = await host.start("job")
    (worktree.path / "one").write_text("1")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2")
    return worktree


@pytest.mark.parametrize("damage", POINTERS)
async def test_job_continues_in_a_damaged_worktree(host: Host, damage: Damage) -> None:
    worktree = await start_with_work(host)
    damage(worktree)
    await host.start("another")
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree
    assert as_claude(worktree.path, "status", "--porcelain", "--branch") == "## feature/job\n?? two"
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


@pytest.mark.parametrize("damage", SETTINGS)
async def test_work_is_published_with_damaged_settings(host: Host, damage: Damage) -> None:
    worktree = await start_with_work(host)
    damage(worktree)
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


async def test_emptied_branch_restarts_at_the_base_with_all_files(host: Host) -> None:
    worktree = await start_with_work(host)
    empty_branch(worktree)
    sha = await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "Initial commit"]
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", sha)
    assert names.splitlines() == sorted([*FILES, "one", "two"])


@pytest.mark.parametrize("damage", [*POINTERS, *SETTINGS, *INDEXES])
async def test_work_in_a_damaged_worktree_is_kept(host: Host, damage: Damage) -> None:
    worktree = await start_with_work(host)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    damage(worktree)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(host.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert names.splitlines() == sorted([*FILES, "one", "two"])
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()


async def test_read_only_worktree_returns_to_its_commit(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    worktree = await host.worktrees.create_detached(OWNER, NAME, "job", None)
    garbage_head(worktree)
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree
    assert as_claude(worktree.path, "rev-parse", "HEAD") == worktree.base_sha
    assert await host.worktrees.changed_paths(worktree) == []


async def test_branch_that_claude_checked_out_stays(host: Host) -> None:
    worktree = await start_with_work(host)
    as_claude(worktree.path, "checkout", "--quiet", "-b", "aside")
    await host.worktrees.find(OWNER, NAME, "job")
    assert as_claude(worktree.path, "branch", "--show-current") == "aside"
    as_claude(worktree.path, "checkout", "--quiet", "--detach")
    await host.worktrees.find(OWNER, NAME, "job")
    assert as_claude(worktree.path, "branch", "--show-current") == ""


async def test_worktree_without_a_record_is_created_again(host: Host) -> None:
    worktree = await start_with_work(host)
    worktree.path.with_name("job.json").unlink()
    assert await host.worktrees.find(OWNER, NAME, "job") is None
    again = await host.start("job")
    assert again == worktree
    assert as_claude(again.path, "rev-parse", "HEAD") == again.base_sha


async def test_worktree_without_files_is_created_again(host: Host) -> None:
    worktree = await start_with_work(host)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    shutil.rmtree(worktree.path)
    assert await host.worktrees.find(OWNER, NAME, "job") is None
    assert await host.start("job") == worktree
    [repository] = host.worktrees.orphaned.iterdir()
    assert as_claude(repository, "rev-parse", "feature/job") == by_claude
    as_claude(repository, "fsck", "--strict")
    assert as_claude(worktree.path, "rev-parse", "HEAD") == worktree.base_sha
