from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude
from workspace.mirrors import gc
from workspace.mirrors.gc import Upkeep

READ_ONLY = """
import os, tempfile
from pathlib import Path
from workspace.worktree.deletion import delete_tree, move_aside

top = Path(tempfile.mkdtemp())
deep = top / "a" / "b"
deep.mkdir(parents=True)
(deep / "file").touch()
deep.chmod(0o500)
deep.parent.chmod(0o000)
top.chmod(0o500)
aside = move_aside(top, top.with_name(top.name + "-trash"))
assert aside is not None and not top.exists()
delete_tree(aside.parent)
assert not aside.parent.exists()
"""


def as_ordinary_user(*command: str) -> tuple[str, ...]:
    """Return a command whose user is bound by permissions, which root is not."""
    if os.geteuid() != 0:
        return command
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", *command)


def loose_objects(room: Room) -> int:
    return int(as_claude(room.mirror_path, "count-objects").split()[0])


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_MAX_LOOSE", 2)


async def test_an_idle_mirror_that_needs_it_is_packed(room: Room, low_limit: None) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert loose_objects(room) > 2
    assert await Upkeep(room.worktrees).pack_idle() == [room.mirror_path]
    assert loose_objects(room) == 0
    assert await room.salvage.kept(OWNER, NAME, "job") == kept
    assert "+x" in (await room.patch() or "")
    await room.start("job2")


async def test_a_mirror_in_use_is_left_alone(room: Room, low_limit: None) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await room.salvage.keep(worktree)
    assert await Upkeep(room.worktrees).pack_idle() == []


async def test_a_mirror_is_borrowed_by_all_that_has_been_begun_and_not_removed(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    assert not room.worktrees.mirror_in_use(mirror.path)
    worktree = await room.start("job")
    assert room.worktrees.mirror_in_use(mirror.path)
    worktree.path.with_name("job.json").unlink()
    shutil.rmtree(worktree.path)
    assert room.worktrees.mirror_in_use(mirror.path)
    await room.removal.remove(OWNER, NAME, "job")
    assert not room.worktrees.mirror_in_use(mirror.path)


async def test_a_mirror_is_not_borrowed_by_jobs_of_another_repository(room: Room) -> None:
    await room.start("job")
    for owner, name in ((OWNER, "Shop.git"), (OWNER, "Shop.js"), ("Other", NAME)):
        room.forge.create_repository(owner, name, {"a": "b"})
        mirror = await room.mirrors.fetch(owner, name)
        assert not room.worktrees.mirror_in_use(mirror.path)
        await room.worktrees.create_detached(owner, name, "reader", None)
        assert room.worktrees.mirror_in_use(mirror.path)


async def test_what_only_a_job_borrows_outlives_the_packing(room: Room, low_limit: None) -> None:
    sha = room.forge.commit(OWNER, NAME, "gone", {"gone": "x"}, "Gone")
    worktree = await room.start("job", base="gone")
    room.forge.repository(OWNER, NAME).bare.delete("gone")
    await room.mirrors.fetch(OWNER, NAME)
    for file in room.mirror_path.glob("objects/??/*"):
        os.utime(file, (0, 0))
    assert await Upkeep(room.worktrees).pack_idle() == []
    (worktree.path / "new").write_text("x")
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "Gone", "Initial commit"]
    await room.removal.remove(OWNER, NAME, "job")
    assert await Upkeep(room.worktrees).pack_idle() == [room.mirror_path]
    assert worktree.base_sha == sha


async def test_a_mirror_that_does_not_need_it_is_left_alone(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    assert await Upkeep(room.worktrees).pack_idle() == []


async def test_one_damaged_mirror_does_not_stop_the_others(room: Room, low_limit: None) -> None:
    room.forge.create_repository(OWNER, "Aaa")
    broken = await room.mirrors.fetch(OWNER, "Aaa")
    (broken.path / "HEAD").unlink()
    await room.mirrors.fetch(OWNER, NAME)
    assert await Upkeep(room.worktrees).pack_idle() == [room.mirror_path]


def test_read_only_directories_are_deleted_too() -> None:
    subprocess.run(
        as_ordinary_user(sys.executable, "-c", READ_ONLY), cwd=Path(__file__).parents[3], check=True
    )
