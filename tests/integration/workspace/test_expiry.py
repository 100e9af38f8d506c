from __future__ import annotations

import logging
import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.mirrors.gc import MirrorPacking

OLD = datetime(2020, 1, 1, tzinfo=UTC)
LIMIT = datetime(2020, 6, 1, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def age(room: Room, ref: str) -> None:
    """Let the commit of a ref be one of OLD."""
    date = {"GIT_COMMITTER_DATE": OLD.isoformat(), **CLAUDE.environment()}
    shape = as_claude(room.mirror_path, "log", "-1", "--format=%T %P", ref).split()
    parents = [argument for parent in shape[1:] for argument in ("-p", parent)]
    body = as_claude(room.mirror_path, "log", "-1", "--format=%B", ref)
    commit = as_claude(
        room.mirror_path, "commit-tree", "-m", body, *parents, shape[0], variables=date
    )
    as_claude(room.mirror_path, "update-ref", ref, commit)


async def leave(room: Room, job_id: str) -> str:
    """Keep the work of a job, and return the ref."""
    (await room.start(job_id)).path.joinpath("new").write_text(job_id)
    assert await room.removal.remove(OWNER, NAME, job_id) is not None
    return f"refs/orchestrator/salvage/{job_id}"


async def test_only_what_is_old_is_forgotten(room: Room) -> None:
    old = await leave(room, "old")
    await leave(room, "young")
    age(room, old)
    assert await room.salvage.kept(OWNER, NAME, "old") is not None
    assert await room.expiry.expire(OLD) == []
    assert await room.expiry.expire(LIMIT) == [old]
    assert await room.expiry.expire(LIMIT) == []
    assert await room.salvage.kept(OWNER, NAME, "old") is None
    assert await room.patch("young") is not None


async def test_old_work_that_is_spared_stays(room: Room) -> None:
    spared, old = await leave(room, "spared"), await leave(room, "old")
    age(room, spared)
    age(room, old)
    assert await room.expiry.expire(LIMIT, {"spared"}) == [old]
    assert await room.expiry.expire(LIMIT) == [spared]


async def test_packed_refs_are_forgotten_too(room: Room) -> None:
    ref = await leave(room, "job")
    age(room, ref)
    as_claude(room.mirror_path, "pack-refs", "--all")
    assert await room.expiry.expire(LIMIT) == [ref]
    assert await room.salvage.kept(OWNER, NAME, "job") is None


async def test_a_ref_that_somebody_planted_is_deleted(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    readme = as_claude(room.mirror_path, "rev-parse", "refs/remotes/origin/main:README.md")
    as_claude(room.mirror_path, "update-ref", "refs/orchestrator/salvage/job", readme)
    assert await room.expiry.expire(LIMIT) == ["refs/orchestrator/salvage/job"]


async def test_every_mirror_is_looked_at(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    room.forge.create_repository(OWNER, "Aaa")
    broken = await room.mirrors.fetch(OWNER, "Aaa")
    (broken.path / "HEAD").unlink()
    old = await leave(room, "old")
    age(room, old)
    with caplog.at_level(logging.WARNING):
        assert await room.expiry.expire(LIMIT) == [old]
    assert str(broken.path) in caplog.text


async def test_forgotten_work_is_gone_once_the_mirror_is_packed(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspace.mirrors.gc._MAX_LOOSE", 0)
    old = await leave(room, "old")
    age(room, old)
    sha = as_claude(room.mirror_path, "rev-parse", old)
    await room.expiry.expire(LIMIT)
    for file in room.mirror_path.glob("objects/??/*"):
        os.utime(file, (OLD.timestamp(), OLD.timestamp()))
    assert await MirrorPacking(room.worktrees).pack_idle() == [room.mirror_path]
    mirror = room.mirrors.mirror(OWNER, NAME)
    assert not await room.mirrors.has_commit(mirror, sha)


async def test_what_was_moved_aside_goes_after_the_same_time(room: Room) -> None:
    worktree = await room.start("job")
    os.utime(worktree.path, (OLD.timestamp(), OLD.timestamp()))
    shutil.rmtree(worktree.git_dir)
    await room.start("job")
    (room.mirror_path / "HEAD").unlink()
    await room.mirrors.fetch(OWNER, NAME)
    aside = [*room.worktrees.orphaned.iterdir(), *room.mirrors.damaged.iterdir()]
    await room.expiry.expire(now() - timedelta(hours=1))
    assert [entry.exists() for entry in aside] == [True, True]
    await room.expiry.expire(now() + timedelta(hours=1))
    assert [entry.exists() for entry in aside] == [False, False]


async def test_an_empty_machine_has_nothing_to_forget(room: Room) -> None:
    assert await room.expiry.expire(now()) == []
