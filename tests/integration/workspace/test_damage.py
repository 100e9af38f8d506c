"""Mirrors that a power cut, a full disk or a kill has damaged, and what becomes of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import FILES, NAME, OWNER, Room, as_claude
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree

TRACKING = "refs/remotes/origin/"
ATTEMPTS = 3
Damage = Callable[[Path], None]


def head_missing(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def head_empty(mirror: Path) -> None:
    (mirror / "HEAD").write_bytes(b"")


def head_garbage(mirror: Path) -> None:
    (mirror / "HEAD").write_bytes(b"\0" * 41)


def config_gone(mirror: Path) -> None:
    (mirror / "config").unlink()


def config_garbage(mirror: Path) -> None:
    (mirror / "config").write_bytes(b"\0" * 300)


def config_directory(mirror: Path) -> None:
    (mirror / "config").unlink()
    (mirror / "config").mkdir()


def ref_empty(mirror: Path) -> None:
    (mirror / TRACKING / "main").write_bytes(b"")


def ref_garbage(mirror: Path) -> None:
    (mirror / TRACKING / "main").write_bytes(b"\0" * 41)


def ref_to_nowhere(mirror: Path) -> None:
    (mirror / TRACKING / "main").write_text("1" * 40 + "\n")


def kept_ref_garbage(mirror: Path) -> None:
    (mirror / "refs/orchestrator/salvage/next").write_bytes(b"\0" * 41)


def refs_gone(mirror: Path) -> None:
    shutil.rmtree(mirror / "refs")


def remote_head_garbage(mirror: Path) -> None:
    (mirror / TRACKING / "HEAD").write_bytes(b"\0" * 20)


def packed_refs_truncated(mirror: Path) -> None:
    as_claude(mirror, "pack-refs", "--all")
    file = mirror / "packed-refs"
    file.write_bytes(file.read_bytes()[:-30])


def packed_refs_garbage(mirror: Path) -> None:
    (mirror / "packed-refs").write_bytes(b"\0" * 200)


def objects_gone(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")


def objects_empty(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()


def pack_truncated(mirror: Path) -> None:
    as_claude(mirror, "repack", "-a", "-d", "-q")
    [pack] = mirror.glob("objects/pack/*.pack")
    os.truncate(pack, pack.stat().st_size - 60)


def pack_cut_short(mirror: Path) -> None:
    as_claude(mirror, "repack", "-a", "-d", "-q")
    [pack] = mirror.glob("objects/pack/*.pack")
    os.truncate(pack, 40)


def pack_zeroed(mirror: Path) -> None:
    as_claude(mirror, "repack", "-a", "-d", "-q")
    [pack] = mirror.glob("objects/pack/*.pack")
    pack.chmod(0o600)
    pack.write_bytes(b"\0" * pack.stat().st_size)


def pack_index_garbage(mirror: Path) -> None:
    as_claude(mirror, "repack", "-a", "-d", "-q")
    [index] = mirror.glob("objects/pack/*.idx")
    index.chmod(0o600)
    index.write_bytes(b"\0" * 100)


def blobs_empty(mirror: Path) -> None:
    _spoil(mirror, "blob", b"")


def blobs_gone(mirror: Path) -> None:
    for sha in _objects(mirror, "blob"):
        (mirror / "objects" / sha[:2] / sha[2:]).unlink()


def blobs_garbage(mirror: Path) -> None:
    _spoil(mirror, "blob", b"\xff" * 30)


def trees_gone(mirror: Path) -> None:
    for sha in _objects(mirror, "tree"):
        (mirror / "objects" / sha[:2] / sha[2:]).unlink()


def trees_garbage(mirror: Path) -> None:
    _spoil(mirror, "tree", b"\xff" * 30)


def commits_empty(mirror: Path) -> None:
    _spoil(mirror, "commit", b"")


def commits_garbage(mirror: Path) -> None:
    _spoil(mirror, "commit", b"\xff" * 30)


def shallow(mirror: Path) -> None:
    head = as_claude(mirror, "rev-parse", f"{TRACKING}main")
    (mirror / "shallow").write_text(f"{head}\n")


def shallow_garbage(mirror: Path) -> None:
    (mirror / "shallow").write_bytes(b"\0" * 41)


def old_locks(mirror: Path) -> None:
    refs = (f"{TRACKING}main", f"{TRACKING}HEAD", "refs/orchestrator/salvage/live")
    for locked in ("HEAD", "packed-refs", "config", "shallow", *refs):
        name = f"{locked}.lock"
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).touch()
        os.utime(mirror / name, (time.time() - 61, time.time() - 61))


def _objects(mirror: Path, kind: str) -> list[str]:
    main = f"{TRACKING}main"
    listed = as_claude(mirror, "rev-list", "--objects", "--no-object-names", main).split()
    return [sha for sha in listed if as_claude(mirror, "cat-file", "-t", sha) == kind]


def _spoil(mirror: Path, kind: str, content: bytes) -> None:
    for sha in _objects(mirror, kind):
        file = mirror / "objects" / sha[:2] / sha[2:]
        file.chmod(0o600)
        file.write_bytes(content)


SPARING = [
    head_missing, head_empty, head_garbage, config_gone, config_garbage, config_directory,
    ref_empty, ref_garbage, ref_to_nowhere, kept_ref_garbage, remote_head_garbage,
    packed_refs_truncated, packed_refs_garbage, blobs_empty, blobs_gone, blobs_garbage, trees_gone,
    trees_garbage, commits_empty, commits_garbage, shallow, shallow_garbage, old_locks,
]  # fmt: skip
"""These leave alone what is only here."""
FATAL = [
    refs_gone, objects_gone, objects_empty, pack_truncated, pack_cut_short, pack_zeroed,
    pack_index_garbage,
]  # fmt: skip


async def at_last(make: Callable[[], Awaitable[Worktree]]) -> Worktree:
    """Make a worktree the way a job does, which tries again where that may help."""
    for _ in range(ATTEMPTS):
        try:
            return await make()
        except JobFailure as failure:
            if not failure.transient:
                raise
    raise AssertionError("It never succeeded.")


async def resume_or_start(room: Room, kept: Salvaged) -> Worktree:
    """Make a worktree of what the job left."""
    await room.mirrors.fetch(OWNER, NAME)
    return await room.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
    )


async def require_next_job(room: Room) -> None:
    """Check that another job can be done from its beginning to its end."""
    worktree = await at_last(lambda: room.start("next"))
    assert {name: (worktree.path / name).read_text() for name in FILES} == FILES
    assert as_claude(worktree.path, "status", "--porcelain") == ""
    (worktree.path / "next").write_text("x")
    sha = await room.publish(worktree)
    assert room.remote()["feature/next"] == sha
    assert await room.removal.remove(OWNER, NAME, "next") is None


@pytest.mark.parametrize("moved", [False, True], ids=["", "the remote moved"])
@pytest.mark.parametrize("damage", SPARING)
async def test_a_damaged_mirror_is_mended_and_no_work_is_lost(
    room: Room, damage: Damage, moved: bool
) -> None:
    ended, live = await room.start("job"), await room.start("live")
    (ended.path / "edit").write_text("work")
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    (live.path / "edit").write_text("work")
    (live.path / "staged").write_text("work")
    as_claude(live.path, "add", "staged")
    damage(room.mirror_path)
    if moved:
        room.forge.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    await require_next_job(room)
    assert await room.salvage.kept(OWNER, NAME, "job") == kept
    again = await at_last(lambda: resume_or_start(room, replace(kept, patch=None)))
    assert (again.path / "edit").read_text() == "work"
    assert await room.worktrees.find(OWNER, NAME, "live") == live
    sha = await room.salvage.keep(live)
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", str(sha)).splitlines()
    assert names == sorted([*FILES, "edit", "staged"])


@pytest.mark.parametrize("damage", FATAL)
async def test_a_destroyed_mirror_is_made_again(room: Room, damage: Damage) -> None:
    worktree = await room.start("job")
    (worktree.path / "edit").write_text("work")
    kept = await room.removal.remove(OWNER, NAME, "job")
    damage(room.mirror_path)
    await require_next_job(room)
    assert kept is not None
    again = await at_last(lambda: resume_or_start(room, kept))
    assert (again.path / "edit").read_text() == "work"


async def test_a_job_publishes_when_its_mirror_was_made_again(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "one").write_text("1")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2")
    trees_garbage(room.mirror_path)
    head_missing(room.mirror_path)
    await require_next_job(room)
    assert list(room.mirrors.damaged.iterdir())
    assert as_claude(worktree.path, "status", "--porcelain") == "?? two"
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


async def test_a_job_whose_own_commit_is_damaged_still_has_its_files(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "one").write_text("1")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    for file in worktree.git_dir.glob("objects/??/*"):
        file.chmod(0o600)
        file.write_bytes(b"")
    await require_next_job(room)
    assert await room.removal.remove(OWNER, NAME, "job") is not None
    assert "+1" in (await room.patch() or "")
