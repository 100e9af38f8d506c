"""Repair of mirrors that a power cut, a full disk or a kill has damaged."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import FILES, NAME, OWNER, Host, as_claude
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
    _overwrite(mirror, "blob", b"")


def blobs_gone(mirror: Path) -> None:
    for sha in _objects(mirror, "blob"):
        (mirror / "objects" / sha[:2] / sha[2:]).unlink()


def blobs_garbage(mirror: Path) -> None:
    _overwrite(mirror, "blob", b"\xff" * 30)


def trees_gone(mirror: Path) -> None:
    for sha in _objects(mirror, "tree"):
        (mirror / "objects" / sha[:2] / sha[2:]).unlink()


def trees_garbage(mirror: Path) -> None:
    _overwrite(mirror, "tree", b"\xff" * 30)


def commits_empty(mirror: Path) -> None:
    _overwrite(mirror, "commit", b"")


def commits_garbage(mirror: Path) -> None:
    _overwrite(mirror, "commit", b"\xff" * 30)


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


def _overwrite(mirror: Path, kind: str, content: bytes) -> None:
    for sha in _objects(mirror, kind):
        file = mirror / "objects" / sha[:2] / sha[2:]
        file.chmod(0o600)
        file.write_bytes(content)


REPAIRABLE = [
    head_missing, head_empty, head_garbage, config_gone, config_garbage, config_directory,
    ref_empty, ref_garbage, ref_to_nowhere, kept_ref_garbage, remote_head_garbage,
    packed_refs_truncated, packed_refs_garbage, blobs_empty, blobs_gone, blobs_garbage, trees_gone,
    trees_garbage, commits_empty, commits_garbage, shallow, shallow_garbage, old_locks,
]  # fmt: skip
"""Damage that leaves the objects that only this host has intact."""
UNREPAIRABLE = [
    refs_gone, objects_gone, objects_empty, pack_truncated, pack_cut_short, pack_zeroed,
    pack_index_garbage,
]  # fmt: skip


async def retry_transient(make: Callable[[], Awaitable[Worktree]]) -> Worktree:
    """Create a worktree as a job does, which retries transient failures."""
    for _ in range(ATTEMPTS):
        try:
            return await make()
        except JobFailure as failure:
            if not failure.transient:
                raise
    raise AssertionError("It never succeeded.")


async def restore(host: Host, kept: Salvaged) -> Worktree:
    """Create a worktree with the kept work of the job."""
    await host.mirrors.fetch(OWNER, NAME)
    return await host.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
    )


async def require_working_job(host: Host) -> None:
    """Check that another job runs from start to end."""
    worktree = await retry_transient(lambda: host.start("next"))
    assert {name: (worktree.path / name).read_text() for name in FILES} == FILES
    assert as_claude(worktree.path, "status", "--porcelain") == ""
    (worktree.path / "next").write_text("x")
    sha = await host.publish(worktree)
    assert host.remote()["feature/next"] == sha
    assert await host.removal.remove(OWNER, NAME, "next") is None


@pytest.mark.parametrize("moved", [False, True], ids=["", "the remote moved"])
@pytest.mark.parametrize("damage", REPAIRABLE)
async def test_damaged_mirror_is_repaired_without_losing_work(
    host: Host, damage: Damage, moved: bool
) -> None:
    ended, live = await host.start("job"), await host.start("live")
    (ended.path / "edit").write_text("work")
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    (live.path / "edit").write_text("work")
    (live.path / "staged").write_text("work")
    as_claude(live.path, "add", "staged")
    damage(host.mirror_path)
    if moved:
        host.github.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    await require_working_job(host)
    assert await host.salvage.kept(OWNER, NAME, "job") == kept
    again = await retry_transient(lambda: restore(host, replace(kept, patch=None)))
    assert (again.path / "edit").read_text() == "work"
    assert await host.worktrees.find(OWNER, NAME, "live") == live
    sha = await host.salvage.keep(live)
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", str(sha)).splitlines()
    assert names == sorted([*FILES, "edit", "staged"])


@pytest.mark.parametrize("damage", UNREPAIRABLE)
async def test_destroyed_mirror_is_created_again(host: Host, damage: Damage) -> None:
    worktree = await host.start("job")
    (worktree.path / "edit").write_text("work")
    kept = await host.removal.remove(OWNER, NAME, "job")
    damage(host.mirror_path)
    await require_working_job(host)
    assert kept is not None
    again = await retry_transient(lambda: restore(host, kept))
    assert (again.path / "edit").read_text() == "work"


async def test_job_publishes_after_its_mirror_was_replaced(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "one").write_text("1")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2")
    trees_garbage(host.mirror_path)
    head_missing(host.mirror_path)
    await require_working_job(host)
    assert list(host.mirrors.damaged.iterdir())
    assert as_claude(worktree.path, "status", "--porcelain") == "?? two"
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


async def test_files_are_kept_if_the_commit_of_the_job_is_damaged(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "one").write_text("1")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    for file in worktree.git_dir.glob("objects/??/*"):
        file.chmod(0o600)
        file.write_bytes(b"")
    await require_working_job(host)
    assert await host.removal.remove(OWNER, NAME, "job") is not None
    assert "+1" in (await host.patch() or "")
