"""Worktrees of which a power cut, a kill or a person has left only parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.integration.workspace.conftest import FILES, NAME, OWNER, Room, as_claude
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


async def begin(room: Room) -> Worktree:
    worktree = await room.start("job")
    (worktree.path / "one").write_text("1")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2")
    return worktree


@pytest.mark.parametrize("damage", POINTERS)
async def test_a_job_goes_on_in_it(room: Room, damage: Damage) -> None:
    worktree = await begin(room)
    damage(worktree)
    await room.start("another")
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree
    assert as_claude(worktree.path, "status", "--porcelain", "--branch") == "## feature/job\n?? two"
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


@pytest.mark.parametrize("damage", SETTINGS)
async def test_a_job_s_work_in_it_is_published(room: Room, damage: Damage) -> None:
    worktree = await begin(room)
    damage(worktree)
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


async def test_a_branch_that_a_power_cut_emptied_begins_again_with_all_files(room: Room) -> None:
    worktree = await begin(room)
    empty_branch(worktree)
    sha = await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "Initial commit"]
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", sha)
    assert names.splitlines() == sorted([*FILES, "one", "two"])


@pytest.mark.parametrize("damage", [*POINTERS, *SETTINGS, *INDEXES])
async def test_its_work_is_kept(room: Room, damage: Damage) -> None:
    worktree = await begin(room)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    damage(worktree)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(room.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert names.splitlines() == sorted([*FILES, "one", "two"])
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()


async def test_a_reader_is_put_back_to_its_commit(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    worktree = await room.worktrees.create_detached(OWNER, NAME, "job", None)
    garbage_head(worktree)
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree
    assert as_claude(worktree.path, "rev-parse", "HEAD") == worktree.base_sha
    assert await room.worktrees.changed_paths(worktree) == []


async def test_what_claude_checked_out_stays_checked_out(room: Room) -> None:
    worktree = await begin(room)
    as_claude(worktree.path, "checkout", "--quiet", "-b", "aside")
    await room.worktrees.find(OWNER, NAME, "job")
    assert as_claude(worktree.path, "branch", "--show-current") == "aside"
    as_claude(worktree.path, "checkout", "--quiet", "--detach")
    await room.worktrees.find(OWNER, NAME, "job")
    assert as_claude(worktree.path, "branch", "--show-current") == ""


async def test_a_directory_without_a_record_is_made_anew(room: Room) -> None:
    worktree = await begin(room)
    worktree.path.with_name("job.json").unlink()
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    again = await room.start("job")
    assert again == worktree
    assert as_claude(again.path, "rev-parse", "HEAD") == again.base_sha


async def test_a_record_without_a_directory_is_made_anew(room: Room) -> None:
    worktree = await begin(room)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    shutil.rmtree(worktree.path)
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    assert await room.start("job") == worktree
    [repository] = room.worktrees.orphaned.iterdir()
    assert as_claude(repository, "rev-parse", "feature/job") == by_claude
    as_claude(repository, "fsck", "--strict")
    assert as_claude(worktree.path, "rev-parse", "HEAD") == worktree.base_sha
