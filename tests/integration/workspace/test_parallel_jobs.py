from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude
from workspace.git.locks import held_descriptors
from workspace.git.runner import GitLocation
from workspace.mirrors import object_transfer
from workspace.worktree import private_repository

JOBS = 8


async def whole_job(host: Host, job_id: str) -> str:
    """Run all steps of a job, and return the pushed commit."""
    worktree = await host.start(job_id)
    (worktree.path / f"{job_id}.txt").write_text(job_id)
    sha = await host.publish(worktree)
    assert await host.removal.remove(OWNER, NAME, job_id) is None
    return sha


async def keep_moving(host: Host) -> None:
    """Commit to main all the time, as other people do."""
    for number in range(1_000):
        files = {"main.txt": str(number)}
        await asyncio.to_thread(host.github.commit, OWNER, NAME, "main", files, f"Main {number}")


async def test_eight_jobs_on_one_repository_while_main_moves(host: Host) -> None:
    # Simulates a second process, which shares only the directories.
    other = Host(host.directory, host.github)
    moving = asyncio.create_task(keep_moving(host))
    jobs = {f"job{number}": (host, other)[number % 2] for number in range(JOBS)}
    shas = await asyncio.gather(*(whole_job(who, job_id) for job_id, who in jobs.items()))
    moving.cancel()
    await asyncio.wait([moving])
    remote = host.remote()
    for job_id, sha in zip(jobs, shas, strict=True):
        assert remote[f"feature/{job_id}"] == sha
        assert host.github.read_file(OWNER, NAME, sha, f"{job_id}.txt") == job_id
        assert host.github.repository(OWNER, NAME).bare.ahead("main", sha) == 1
    assert "broken" not in as_claude(host.mirror_path, "fsck", "--full", "--strict")
    assert not list(host.mirrors.scratch.iterdir())
    assert not list(host.worktrees.trash.iterdir())


async def test_mirror_changes_only_under_its_lock(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_run, really_move, really_make = (
        host.git.run,
        object_transfer._move,
        private_repository.make,
    )
    seen: dict[str, bool] = {}

    def look(step: str) -> None:
        held = [os.readlink(f"/proc/self/fd/{number}") for number in held_descriptors()]
        lock = str(host.mirror_path.with_suffix(".lock"))
        seen[step] = seen.get(step, True) and lock in held

    async def run(*arguments: str, at: GitLocation, **options: Any) -> str:
        if at.git_dir == host.mirror_path and arguments[0] == "update-ref":
            look(" ".join(part for part in arguments[:3] if part != "--no-deref"))
        return await really_run(*arguments, at=at, **options)

    def move(*arguments: Any) -> None:
        look("bring a pack")
        really_move(*arguments)

    def make(*arguments: Any, **options: Any) -> None:
        look("borrow objects")
        really_make(*arguments, **options)

    monkeypatch.setattr(host.git, "run", run)
    monkeypatch.setattr(object_transfer, "_move", move)
    monkeypatch.setattr(private_repository, "make", make)
    await host.mirrors.fetch(OWNER, NAME)
    host.github.commit(OWNER, NAME, "main", {"more": "x"}, "More")
    await whole_job(host, "job")
    (await host.start("kept")).path.joinpath("new").write_text("x")
    await host.removal.remove(OWNER, NAME, "kept")
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


async def test_two_jobs_never_share_a_branch(host: Host) -> None:
    other = Host(host.directory, host.github)
    results = await asyncio.gather(
        host.start("job1", "same"), other.start("job2", "same"), return_exceptions=True
    )
    assert sorted(isinstance(result, JobFailure) for result in results) == [False, True]


async def test_concurrent_starts_of_one_job_create_one_worktree(host: Host) -> None:
    other = Host(host.directory, host.github)
    await host.mirrors.fetch(OWNER, NAME)
    one, two = await asyncio.gather(host.start("job"), other.start("job"))
    assert one == two
    left = {entry.name for entry in one.path.parent.iterdir()}
    assert left == {"job", "job.git", "job.json", "job.lock"}


async def test_concurrent_remove_and_start_leave_a_consistent_state(host: Host) -> None:
    await host.start("job")
    other = Host(host.directory, host.github)
    _, made = await asyncio.gather(other.removal.remove(OWNER, NAME, "job"), host.start("job"))
    found = await host.worktrees.find(OWNER, NAME, "job")
    assert found in (None, made)
    assert made.path.is_dir() == (found is not None)
