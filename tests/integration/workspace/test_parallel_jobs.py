from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude
from workspace.git.locks import held_descriptors
from workspace.git.runner import GitLocation
from workspace.mirrors import object_transfer
from workspace.worktree import private_repository

JOBS = 8


async def whole_job(room: Room, job_id: str) -> str:
    """Do everything a job does, and return what it pushed."""
    worktree = await room.start(job_id)
    (worktree.path / f"{job_id}.txt").write_text(job_id)
    sha = await room.publish(worktree)
    assert await room.removal.remove(OWNER, NAME, job_id) is None
    return sha


async def keep_moving(room: Room) -> None:
    """Let other people commit to main all the time."""
    for number in range(1_000):
        files = {"main.txt": str(number)}
        await asyncio.to_thread(room.forge.commit, OWNER, NAME, "main", files, f"Main {number}")


async def test_eight_jobs_on_one_repository_while_main_moves(room: Room) -> None:
    # A second process: it shares nothing but the directories.
    other = Room(room.directory, room.forge)
    moving = asyncio.create_task(keep_moving(room))
    jobs = {f"job{number}": (room, other)[number % 2] for number in range(JOBS)}
    shas = await asyncio.gather(*(whole_job(who, job_id) for job_id, who in jobs.items()))
    moving.cancel()
    await asyncio.wait([moving])
    remote = room.remote()
    for job_id, sha in zip(jobs, shas, strict=True):
        assert remote[f"feature/{job_id}"] == sha
        assert room.forge.read_file(OWNER, NAME, sha, f"{job_id}.txt") == job_id
        assert room.forge.repository(OWNER, NAME).bare.ahead("main", sha) == 1
    assert "broken" not in as_claude(room.mirror_path, "fsck", "--full", "--strict")
    assert not list(room.mirrors.scratch.iterdir())
    assert not list(room.worktrees.trash.iterdir())


async def test_a_mirror_changes_only_under_its_lock(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_run, really_move, really_make = (
        room.git.run,
        object_transfer._move,
        private_repository.make,
    )
    seen: dict[str, bool] = {}

    def look(step: str) -> None:
        held = [os.readlink(f"/proc/self/fd/{number}") for number in held_descriptors()]
        lock = str(room.mirror_path.with_suffix(".lock"))
        seen[step] = seen.get(step, True) and lock in held

    async def run(*arguments: str, at: GitLocation, **options: Any) -> str:
        if at.git_dir == room.mirror_path and arguments[0] == "update-ref":
            look(" ".join(part for part in arguments[:3] if part != "--no-deref"))
        return await really_run(*arguments, at=at, **options)

    def move(*arguments: Any) -> None:
        look("bring a pack")
        really_move(*arguments)

    def make(*arguments: Any, **options: Any) -> None:
        look("borrow objects")
        really_make(*arguments, **options)

    monkeypatch.setattr(room.git, "run", run)
    monkeypatch.setattr(object_transfer, "_move", move)
    monkeypatch.setattr(private_repository, "make", make)
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.commit(OWNER, NAME, "main", {"more": "x"}, "More")
    await whole_job(room, "job")
    (await room.start("kept")).path.joinpath("new").write_text("x")
    await room.removal.remove(OWNER, NAME, "kept")
    assert seen == dict.fromkeys(
        (
            "borrow objects",
            "bring a pack",
            "update-ref --stdin",
            "update-ref refs/orchestrator/salvage/kept",
            "update-ref refs/remotes/origin/feature/job",
        ),
        True,
    )


async def test_two_jobs_for_one_branch_never_share_it(room: Room) -> None:
    other = Room(room.directory, room.forge)
    results = await asyncio.gather(
        room.start("job1", "same"), other.start("job2", "same"), return_exceptions=True
    )
    assert sorted(isinstance(result, JobFailure) for result in results) == [False, True]


async def test_one_job_asked_for_twice_at_once_is_made_once(room: Room) -> None:
    other = Room(room.directory, room.forge)
    await room.mirrors.fetch(OWNER, NAME)
    one, two = await asyncio.gather(room.start("job"), other.start("job"))
    assert one == two
    left = {entry.name for entry in one.path.parent.iterdir()}
    assert left == {"job", "job.git", "job.json", "job.lock"}


async def test_removing_and_making_at_once_ends_in_one_of_the_two(room: Room) -> None:
    await room.start("job")
    other = Room(room.directory, room.forge)
    _, made = await asyncio.gather(other.removal.remove(OWNER, NAME, "job"), room.start("job"))
    found = await room.worktrees.find(OWNER, NAME, "job")
    assert found in (None, made)
    assert made.path.is_dir() == (found is not None)
