from __future__ import annotations

import logging
import os
import shutil
import time

import pytest

from domain.errors import (
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    JobFailure,
    OrchestratorError,
)
from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree


def refs(room: Room, prefix: str) -> list[str]:
    printed = as_claude(room.mirror_path, "for-each-ref", "--format=%(refname)", prefix)
    return printed.splitlines()


def left_of(room: Room, worktree: Worktree) -> list[str]:
    return sorted(entry.name for entry in worktree.path.parent.iterdir())


async def is_live(job_id: str) -> bool:
    return job_id == "live"


async def nothing_is(job_id: str) -> bool:
    return False


async def remove(room: Room, job_id: str) -> Salvaged | None:
    return await room.removal.remove(OWNER, NAME, job_id)


async def test_removing_leaves_nothing_behind(room: Room) -> None:
    worktree = await room.start("job")
    assert await remove(room, "job") is None
    assert left_of(room, worktree) == []
    assert refs(room, "refs") == ["refs/remotes/origin/HEAD", "refs/remotes/origin/main"]
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    assert not list(room.worktrees.trash.iterdir())
    as_claude(room.mirror_path, "fsck")


async def test_an_untracked_file_survives_as_a_patch(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "untracked.txt").write_text("hours of work\n")
    assert await remove(room, "job") is not None
    assert not worktree.path.exists()
    assert "+hours of work" in (await room.patch() or "")


async def test_removing_twice_is_removing_once(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    kept = await remove(room, "job")
    assert await remove(room, "job") == kept
    assert await remove(room, "never-was") is None


async def test_a_repository_that_was_never_fetched(room: Room) -> None:
    assert await room.removal.remove(OWNER, "Other", "job") is None


async def test_the_branch_can_be_used_again(room: Room) -> None:
    await room.start("job1", "feature/x")
    await remove(room, "job1")
    worktree = await room.start("job2", "feature/x")
    assert worktree.base_sha == room.remote()["main"]


async def test_a_reader_is_removed_too(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    worktree = await room.worktrees.create_detached(OWNER, NAME, "task", None)
    await remove(room, "task")
    assert left_of(room, worktree) == []


async def test_a_worktree_deleted_by_hand_is_cleared(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    shutil.rmtree(worktree.path)
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    await remove(room, "job")
    assert left_of(room, worktree) == []
    await room.start("job2", "feature/x")


async def test_a_worktree_deleted_by_hand_does_not_hold_its_branch(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    shutil.rmtree(worktree.path)
    await room.start("job2", "feature/x")


async def test_a_missing_dot_git_file_is_no_reason_to_lose_work(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    (worktree.path / ".git").unlink()
    await room.start("another")
    kept = await remove(room, "job")
    assert kept is not None
    assert "+x" in (await room.patch() or "")


async def test_files_without_a_repository_are_kept(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    shutil.rmtree(worktree.git_dir)
    kept = await remove(room, "job")
    assert kept is not None
    assert kept.base_sha == worktree.base_sha
    assert "+x" in (kept.patch or "")
    assert left_of(room, worktree) == []


async def test_what_is_left_of_an_unfinished_job_is_moved_not_deleted(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    shutil.rmtree(worktree.git_dir)
    again = await room.start("job")
    assert not (again.path / "new").exists()
    [orphan] = room.worktrees.orphaned.glob("job-*/new")
    assert orphan.read_text() == "x"


async def test_work_that_cannot_be_kept_stops_the_removal(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    objects = worktree.mirror / "objects"
    aside = objects.rename(objects.with_name("elsewhere"))
    with pytest.raises(JobFailure):
        await remove(room, "job")
    assert (worktree.path / "new").read_text() == "x"
    aside.rename(objects)
    assert await remove(room, "job") is not None


async def test_sweeping_removes_what_no_live_job_owns(room: Room) -> None:
    room.forge.create_repository("Other", "Place")
    await room.mirrors.fetch("Other", "Place")
    other = await room.worktrees.create_for_branch("Other", "Place", "dead2", "b", "main")
    live, dead = await room.start("live"), await room.start("dead1")
    (dead.path / "new").write_text("x")
    assert await room.removal.sweep(is_live) == ["dead1", "dead2"]
    assert live.path.is_dir()
    assert not dead.path.exists()
    assert not other.path.exists()
    assert await room.salvage.kept(OWNER, NAME, "dead1") is not None
    assert await room.removal.sweep(is_live) == []


async def test_kept_work_is_recorded_before_the_worktree_goes(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    recorded: list[tuple[str, Salvaged]] = []

    async def refuse(job_id: str, kept: Salvaged) -> None:
        raise DependencyUnavailable("The store does not answer.", "store")

    async def record(job_id: str, kept: Salvaged) -> None:
        assert len(recorded) > 0 or (worktree.path / "new").exists()
        recorded.append((job_id, kept))

    with pytest.raises(DependencyUnavailable):
        await room.removal.remove(OWNER, NAME, "job", refuse)
    assert await room.removal.sweep(nothing_is, refuse) == []
    assert (worktree.path / "new").read_text() == "x"
    kept = await room.removal.remove(OWNER, NAME, "job", record)
    assert kept is not None
    assert not worktree.path.exists()
    assert await room.removal.remove(OWNER, NAME, "job", record) == kept
    assert recorded == [("job", kept)] * 2


async def test_sweeping_records_what_is_kept(room: Room) -> None:
    recorded: dict[str, Salvaged] = {}

    async def record(job_id: str, kept: Salvaged) -> None:
        recorded[job_id] = kept

    for job_id in ("clean", "edited"):
        worktree = await room.start(job_id)
    (worktree.path / "new").write_text("x")
    assert await room.removal.sweep(nothing_is, record) == ["clean", "edited"]
    assert recorded == {"edited": await room.salvage.kept(OWNER, NAME, "edited")}


@pytest.mark.parametrize(
    "error",
    [
        DependencyUnavailable("It does not answer.", "store"),
        DependencyFailed("It refuses.", "store"),
        InvalidRequest("It is too long."),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_one_refused_record_does_not_stop_the_sweep(
    room: Room, caplog: pytest.LogCaptureFixture, error: OrchestratorError
) -> None:
    async def record(job_id: str, kept: Salvaged) -> None:
        if job_id == "bad":
            raise error

    for job_id in ("bad", "good"):
        (await room.start(job_id)).path.joinpath("new").write_text(job_id)
    with caplog.at_level(logging.WARNING):
        assert await room.removal.sweep(nothing_is, record) == ["good"]
    assert (room.worktrees.path(OWNER, NAME, "bad") / "new").read_text() == "bad"
    assert f"job bad was not removed: {error.message}" in caplog.text


async def test_sweeping_clears_what_crashes_leave(room: Room) -> None:
    await room.start("live")
    (room.worktrees.trash / "old-1" / "old").mkdir(parents=True)
    old, young = room.mirrors.scratch / "mirror-old", room.mirrors.scratch / "mirror-young"
    for directory in (old, young):
        (directory / "objects").mkdir(parents=True)
    os.utime(old, (time.time() - 86_400, time.time() - 86_400))
    await room.removal.sweep(is_live)
    assert not list(room.worktrees.trash.iterdir())
    assert [entry.name for entry in room.mirrors.scratch.iterdir()] == ["mirror-young"]


async def test_one_bad_worktree_does_not_stop_the_sweep(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.forge.create_repository("Other", "Place")
    mirror = await room.mirrors.fetch("Other", "Place")
    bad = await room.worktrees.create_for_branch("Other", "Place", "bad", "b", "main")
    good = await room.start("good")
    (bad.path / "new").write_text("x")
    mirror.objects.rename(mirror.path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        assert await room.removal.sweep(nothing_is) == ["good"]
    assert not good.path.exists()
    assert (bad.path / "new").exists()
    assert "job bad was not removed" in caplog.text


async def test_an_empty_machine_has_nothing_to_sweep(room: Room) -> None:
    assert await room.removal.sweep(nothing_is) == []
