from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude
from workspace.mirrors import gc
from workspace.mirrors.gc import MirrorPacking

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
    """Return a command that runs without root's right to ignore permissions."""
    if os.geteuid() != 0:
        return command
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", *command)


def loose_objects(host: Host) -> int:
    return int(as_claude(host.mirror_path, "count-objects").split()[0])


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_MAX_LOOSE", 2)


async def test_idle_mirror_with_many_loose_objects_is_packed(host: Host, low_limit: None) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert loose_objects(host) > 2
    assert await MirrorPacking(host.worktrees).pack_idle() == [host.mirror_path]
    assert loose_objects(host) == 0
    assert await host.salvage.kept(OWNER, NAME, "job") == kept
    assert "+x" in (await host.patch() or "")
    await host.start("job2")


async def test_mirror_in_use_is_not_packed(host: Host, low_limit: None) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    await host.salvage.keep(worktree)
    assert await MirrorPacking(host.worktrees).pack_idle() == []


async def test_mirror_is_in_use_from_start_to_removal(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    assert not host.worktrees.mirror_in_use(mirror.path)
    worktree = await host.start("job")
    assert host.worktrees.mirror_in_use(mirror.path)
    worktree.path.with_name("job.json").unlink()
    shutil.rmtree(worktree.path)
    assert host.worktrees.mirror_in_use(mirror.path)
    await host.removal.remove(OWNER, NAME, "job")
    assert not host.worktrees.mirror_in_use(mirror.path)


async def test_mirror_is_not_in_use_by_jobs_of_another_repository(host: Host) -> None:
    await host.start("job")
    for owner, name in ((OWNER, "Shop.git"), (OWNER, "Shop.js"), ("Other", NAME)):
        host.github.create_repository(owner, name, {"a": "b"})
        mirror = await host.mirrors.fetch(owner, name)
        assert not host.worktrees.mirror_in_use(mirror.path)
        await host.worktrees.create_detached(owner, name, "reader", None)
        assert host.worktrees.mirror_in_use(mirror.path)


async def test_objects_that_only_a_job_uses_are_not_deleted(host: Host, low_limit: None) -> None:
    sha = host.github.commit(OWNER, NAME, "gone", {"gone": "x"}, "Gone")
    worktree = await host.start("job", base="gone")
    host.github.repository(OWNER, NAME).bare.delete("gone")
    await host.mirrors.fetch(OWNER, NAME)
    for file in host.mirror_path.glob("objects/??/*"):
        os.utime(file, (0, 0))
    assert await MirrorPacking(host.worktrees).pack_idle() == []
    (worktree.path / "new").write_text("x")
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "Gone", "Initial commit"]
    await host.removal.remove(OWNER, NAME, "job")
    assert await MirrorPacking(host.worktrees).pack_idle() == [host.mirror_path]
    assert worktree.base_sha == sha


async def test_mirror_with_few_loose_objects_is_not_packed(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    assert await MirrorPacking(host.worktrees).pack_idle() == []


async def test_damaged_mirror_does_not_stop_the_others(host: Host, low_limit: None) -> None:
    host.github.create_repository(OWNER, "Aaa")
    broken = await host.mirrors.fetch(OWNER, "Aaa")
    (broken.path / "HEAD").unlink()
    await host.mirrors.fetch(OWNER, NAME)
    assert await MirrorPacking(host.worktrees).pack_idle() == [host.mirror_path]


def test_read_only_directories_are_deleted() -> None:
    subprocess.run(
        as_ordinary_user(sys.executable, "-c", READ_ONLY), cwd=Path(__file__).parents[3], check=True
    )
