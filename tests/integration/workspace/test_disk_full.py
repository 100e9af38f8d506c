"""Full disks below the mirrors or the worktrees."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, FILES, NAME, OWNER, Host, as_claude
from tests.small_disk import CHUNK, SmallDisk, can_mount, small_disk

pytestmark = pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")


@pytest.fixture
def mirrors_disk(host: Host) -> Iterator[SmallDisk]:
    with small_disk(host.mirrors.root) as disk:
        yield disk


@pytest.fixture
def worktrees_disk(host: Host) -> Iterator[SmallDisk]:
    with small_disk(host.worktrees.root) as disk:
        yield disk


async def require_disk_full(disk: SmallDisk, step: Callable[[], Awaitable[object]]) -> None:
    """Check that a step fails with DISK_FULL at several amounts of space; then free the disk."""
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


async def test_no_space_for_a_mirror(host: Host, mirrors_disk: SmallDisk) -> None:
    host.github.commit(OWNER, NAME, "main", BIG, "Big")
    await require_disk_full(mirrors_disk, lambda: host.mirrors.fetch(OWNER, NAME))
    assert not host.mirror_path.exists()
    await host.mirrors.fetch(OWNER, NAME)
    as_claude(host.mirror_path, "fsck", "--strict")


async def test_no_space_for_new_commits_of_the_remote(host: Host, mirrors_disk: SmallDisk) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    host.github.commit(OWNER, NAME, "main", BIG, "Big")
    await require_disk_full(mirrors_disk, lambda: host.mirrors.fetch(OWNER, NAME))
    worktree = await host.start("job")
    assert (worktree.path / "big.bin").read_bytes() == BIG["big.bin"]


async def test_no_space_for_a_worktree(host: Host, worktrees_disk: SmallDisk) -> None:
    host.github.commit(OWNER, NAME, "main", BIG, "Big")
    await host.mirrors.fetch(OWNER, NAME)

    async def make() -> None:
        await host.worktrees.create_for_branch(OWNER, NAME, "job", "b", "main")

    await require_disk_full(worktrees_disk, make)
    await make()
    worktree = await host.worktrees.find(OWNER, NAME, "job")
    assert worktree is not None
    assert as_claude(worktree.path, "status", "--porcelain") == ""


async def test_no_space_to_commit(host: Host, worktrees_disk: SmallDisk) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    await require_disk_full(
        worktrees_disk, lambda: host.publishing.commit_all(worktree, "Do it", CLAUDE)
    )
    assert (worktree.path / "big.bin").read_bytes() == BIG["big.bin"]
    await host.publish(worktree)
    assert host.remote_log("feature/x") == ["Do it", "Initial commit"]


async def test_no_space_for_a_commit_in_the_mirror(host: Host, mirrors_disk: SmallDisk) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    await host.publishing.commit_all(worktree, "Do it", CLAUDE)
    await require_disk_full(mirrors_disk, lambda: host.publishing.head(worktree))
    assert not list(host.mirrors.scratch.iterdir())
    await host.publish(worktree)
    assert host.remote_log("feature/x") == ["Do it", "Initial commit"]


async def test_no_space_to_push(host: Host, mirrors_disk: SmallDisk) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    sha = await host.commit(worktree)
    mirrors_disk.fill()
    with pytest.raises(JobFailure) as caught:
        await host.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert caught.value.code is FailureCode.DISK_FULL
    mirrors_disk.free()
    await host.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert host.remote()["feature/x"] == sha


@pytest.mark.parametrize("below", ["mirrors_disk", "worktrees_disk"])
async def test_no_space_to_keep_the_work(
    host: Host, below: str, request: pytest.FixtureRequest
) -> None:
    disk: SmallDisk = request.getfixturevalue(below)
    worktree = await host.start("job")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    await require_disk_full(disk, lambda: host.removal.remove(OWNER, NAME, "job"))
    assert (worktree.path / "big.bin").read_bytes() == BIG["big.bin"]
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert names.splitlines() == sorted([*FILES, "big.bin"])


async def test_no_space_to_restore_kept_work(host: Host, mirrors_disk: SmallDisk) -> None:
    worktree = await host.start("job")
    (worktree.path / "big.bin").write_bytes(BIG["big.bin"])
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    as_claude(host.mirror_path, "update-ref", "-d", "refs/orchestrator/salvage/job")
    as_claude(host.mirror_path, "prune", "--expire=now")

    async def restore() -> None:
        await host.worktrees.create_from_salvage(
            OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
        )

    await require_disk_full(mirrors_disk, restore)
    await restore()
    again = host.worktrees.path(OWNER, NAME, "again")
    assert (again / "big.bin").read_bytes() == BIG["big.bin"]
