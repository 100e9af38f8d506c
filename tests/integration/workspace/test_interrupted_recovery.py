"""Workers killed while they make a damaged mirror again, and jobs that go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude, until
from workspace.mirrors import repair
from workspace.publishing import Head
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass(frozen=True)
class Left:
    """What two jobs have left in a mirror that is damaged afterwards.

    Args:
        kept: the work of the one that has ended.
        live: the worktree of the other, with a commit and a new file.
        by_claude: the commit, which is in the mirror.
    """

    kept: Salvaged | None
    live: Worktree
    by_claude: str


def commit(worktree: Worktree, name: str) -> str:
    (worktree.path / name).write_text(f"{name}\n")
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "--quiet", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


@pytest.fixture
async def left(room: Room) -> Left:
    (await room.start("ended")).path.joinpath("edit").write_text("work")
    kept = await room.removal.remove(OWNER, NAME, "ended")
    live = await room.start("live")
    by_claude = commit(live, "one")
    await room.publishing.head(live)
    (live.path / "two").write_text("two\n")
    (room.mirror_path / "lfs/objects").mkdir(parents=True)
    (room.mirror_path / "lfs/objects/old").write_text("old")
    (room.mirror_path / "damaged").touch()
    return Left(kept, live, by_claude)


def die(*arguments: object) -> None:
    raise Killed


def on_rename(monkeypatch: pytest.MonkeyPatch, is_it: Callable[[Path, Path], bool]) -> None:
    rename = Path.rename

    def guarded(source: Path, target: Path) -> Path:
        if is_it(source, target):
            die()
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", guarded)


def before_anything_moves(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rename(monkeypatch, lambda source, target: source == room.mirror_path)


def before_the_fresh_one_is_there(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rename(monkeypatch, lambda source, target: target == room.mirror_path)


def before_the_rest_is_carried_over(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "finish_replacement", die)


def before_the_lfs_files_move(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rename(monkeypatch, lambda source, target: source.name == "lfs")


def before_it_counts_as_done(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def guarded(file: Path, missing_ok: bool = False) -> None:
        if file.is_symlink():
            die()
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", guarded)


STEPS = [
    before_anything_moves, before_the_fresh_one_is_there, before_the_rest_is_carried_over,
    before_the_lfs_files_move, before_it_counts_as_done,
]  # fmt: skip
Step = Callable[[Room, pytest.MonkeyPatch], None]


async def interrupt(room: Room, step: Step) -> None:
    """Fetch, which makes the mirror again, and get no further than to `step`."""
    with pytest.MonkeyPatch.context() as patched:
        step(room, patched)
        with pytest.raises(Killed):
            await room.mirrors.fetch(OWNER, NAME)


async def require_all(room: Room, left: Left) -> None:
    assert await room.worktrees.find(OWNER, NAME, "live") == left.live
    assert as_claude(left.live.path, "rev-parse", "HEAD") == left.by_claude
    assert as_claude(left.live.path, "status", "--porcelain") == "?? two"
    assert (room.mirror_path / "lfs/objects/old").read_text() == "old"
    assert await room.salvage.kept(OWNER, NAME, "ended") == left.kept is not None


async def fetched(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)


async def another_started(room: Room) -> None:
    await room.start("next")


async def nothing(room: Room) -> None:
    pass


@pytest.mark.parametrize("then", [fetched, another_started, nothing])
@pytest.mark.parametrize("step", STEPS)
async def test_nothing_is_lost_with_a_worker_that_dies(
    room: Room, left: Left, step: Step, then: Callable[[Room], Awaitable[None]]
) -> None:
    await interrupt(room, step)
    await then(room)
    await require_all(room, left)
    await room.mirrors.fetch(OWNER, NAME)
    await require_all(room, left)
    assert not (room.mirror_path / "damaged").exists()
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    await room.publish(left.live)
    assert room.remote_log("feature/live") == ["Do it", "Claude: one", "Initial commit"]


@pytest.mark.parametrize("step", STEPS[3:])
async def test_a_successor_that_dies_too_loses_nothing(room: Room, left: Left, step: Step) -> None:
    await interrupt(room, before_the_rest_is_carried_over)
    await interrupt(room, step)
    await require_all(room, left)


@pytest.mark.parametrize("step", STEPS)
async def test_the_work_of_a_job_that_ends_then_is_kept(room: Room, left: Left, step: Step) -> None:
    await interrupt(room, step)
    kept = await room.removal.remove(OWNER, NAME, "live")
    assert kept is not None
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert {"one", "two"} <= set(names.splitlines())
    assert not room.worktrees.orphaned.exists()


@pytest.mark.parametrize("step", STEPS)
async def test_a_commit_can_be_pushed_then(room: Room, left: Left, step: Step) -> None:
    await interrupt(room, step)
    await room.publishing.push(OWNER, NAME, left.by_claude, "feature/live", None)
    assert room.remote()["feature/live"] == left.by_claude


async def test_what_jobs_bring_meanwhile_is_there_too(
    room: Room, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_over = repair.carry_over
    bringing: list[asyncio.Task[Head]] = []

    async def slow(*arguments: object) -> None:
        await carry_over(*arguments)  # type: ignore[arg-type]
        if not bringing:
            late = commit(left.live, "late")
            as_claude(room.mirror_path, "hash-object", "-w", str(left.live.path / "two"))
            bringing.append(asyncio.create_task(room.publishing.head(left.live)))
            # Until it waits for the lock.
            await until(lambda: bool([*room.mirrors.scratch.glob("private-*/job.idx")]))
            assert not await room.mirrors.has_commit(room.mirrors.mirror(OWNER, NAME), late)

    monkeypatch.setattr(repair, "carry_over", slow)
    await room.mirrors.fetch(OWNER, NAME)
    assert list(room.mirrors.damaged.iterdir())
    head = await bringing[0]
    assert as_claude(left.live.path, "rev-parse", "feature/live", "HEAD").split() == [head.sha] * 2
    written = as_claude(left.live.path, "hash-object", "two")
    assert as_claude(room.mirror_path, "cat-file", "-t", written) == "blob"
    await room.publish(left.live)
    assert room.remote_log("feature/live")[1:3] == ["Claude: late", "Claude: one"]


async def test_what_a_command_under_way_has_made_is_no_obstacle(room: Room, left: Left) -> None:
    await interrupt(room, before_the_lfs_files_move)
    (room.mirror_path / "lfs/objects").mkdir(parents=True)
    (room.mirror_path / "lfs/objects/new").write_text("new")
    await require_all(room, left)
    files = sorted(file.name for file in (room.mirror_path / "lfs/objects").iterdir())
    assert files == ["new", "old"]
