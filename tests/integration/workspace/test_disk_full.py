"""Disks without space, below the mirrors or below the worktrees."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, FILES, NAME, OWNER, Room, as_claude
from tests.small_disk import CHUNK, SmallDisk, can_mount, small_disk

pytestmark = pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")


@pytest.fixture
def mirrors_disk(room: Room) -> Iterator[SmallDisk]:
    with small_disk(room.mirrors.root) as disk:
        yield disk


@pytest.fixture
def worktrees_disk(room: Room) -> Iterator[SmallDisk]:
    with small_disk(room.worktrees.root) as disk:
        yield disk


async def refused(disk: SmallDisk, step: Callable[[], Awaitable[object]]) -> None:
    """Check what a step says to every amount of space that is too little; then free the disk."""
    codes = []
    for free in (0, CHUNK, 3 * CHUNK, 8 * CHUNK, 100 * CHUNK):
        disk.fill(but=free)
        try:
            await step()
        except JobFailure as failure:
            codes.append(failure.code)
        else:
            break
    assert set(codes) == {FailureCode.DISK_FULL}
    disk.free()


BIG = {"big.bin": os.urandom(1_000_000)}


async def test_no_space_for_a_mirror(room: Room, mirrors_disk: SmallDisk) -> None:
    room.forge.commit(OWNER, NAME, "main", BIG, "Big")
    await refused(mirrors_disk, lambda: room.mirrors.fetch(OWNER, NAME))
    assert not room.mirror_path.exists()
    await room.mirrors.fetch(OWNER, NAME)
    as_claude(room.mirror_path, "fsck", "--strict")


async def test_no_space_for_what_is_new_on_the_remote(room: Room, mirrors_disk: SmallDisk) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.commit(OWNER, NAME, "main", BIG, "Big")
    await refused(mirrors_disk, lambda: room.mirrors.fetch(OWNER, NAME))
    worktree = await room.start("job")
    assert (worktree.path / "big.bin").read_bytes() == BIG["big.bin"]


async def test_no_space_for_a_worktree(room: Room, worktrees_disk: SmallDisk) -> None:
    room.forge.commit(OWNER, NAME, "main", BIG, "Big")
    await room.mirrors.fetch(OWNER, NAME)

    async def make() -> None:
        await room.worktrees.create_for_branch(OWNER, NAME, "job", "b", "main")

    await refused(worktrees_disk, make)
    await make()
    worktree = await room.worktrees.find(OWNER, NAME, "job")
    assert worktree is not None
    assert as_claude(worktree.path, "status", "--porcelain") == ""


async def test_no_space_to_commit(room: Room, worktrees_disk: SmallDisk) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    await refused(worktrees_disk, lambda: room.publishing.commit_all(worktree, "Do it", CLAUDE))
    assert (worktree.path / "big.bin").read_bytes() == BIG["big.bin"]
    await room.publish(worktree)
    assert room.remote_log("feature/x") == ["Do it", "Initial commit"]


async def test_no_space_for_a_commit_in_the_mirror(room: Room, mirrors_disk: SmallDisk) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    await room.publishing.commit_all(worktree, "Do it", CLAUDE)
    await refused(mirrors_disk, lambda: room.publishing.head(worktree))
    assert not list(room.mirrors.scratch.iterdir())
    await room.publish(worktree)
    assert room.remote_log("feature/x") == ["Do it", "Initial commit"]


async def test_no_space_to_push(room: Room, mirrors_disk: SmallDisk) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await room.commit(worktree)
    mirrors_disk.fill()
    with pytest.raises(JobFailure) as caught:
        await room.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert caught.value.code is FailureCode.DISK_FULL
    mirrors_disk.free()
    await room.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert room.remote()["feature/x"] == sha


@pytest.mark.parametrize("below", ["mirrors_disk", "worktrees_disk"])
async def test_no_space_to_keep_the_work(
    room: Room, below: str, request: pytest.FixtureRequest
) -> None:
    disk: SmallDisk = request.getfixturevalue(below)
    worktree = await room.start("job")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    await refused(disk, lambda: room.removal.remove(OWNER, NAME, "job"))
    assert (worktree.path / "big.bin").read_bytes() == BIG["big.bin"]
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert names.splitlines() == sorted([*FILES, "big.bin"])


async def test_no_space_to_take_up_kept_work(room: Room, mirrors_disk: SmallDisk) -> None:
    worktree = await room.start("job")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    as_claude(room.mirror_path, "update-ref", "-d", "refs/orchestrator/salvage/job")
    as_claude(room.mirror_path, "prune", "--expire=now")

    async def resume_or_start() -> None:
        await room.worktrees.create_from_salvage(
            OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
        )

    await refused(mirrors_disk, resume_or_start)
    await resume_or_start()
    again = room.worktrees.path(OWNER, NAME, "again")
    assert (again / "big.bin").read_bytes() == BIG["big.bin"]
