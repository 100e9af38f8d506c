"""A sweep removes the files of ended jobs and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.jobs import LIVE, Job, JobStatus, Phase
from fakes.github.server import FakeGitHub
from host import sweeper
from store.protocol import Guard
from tests.integration.activities.outages import Outages
from tests.integration.activities.worker_host import NAME, OWNER, WorkerHost
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World, new_id


async def ended(host: WorkerHost, job: Job, phase: Phase | None = None) -> None:
    changes: Any = {"status": JobStatus.FAILED, "phase": phase}
    assert await host.world.store.update_job(job.id, changes, Guard(LIVE))


def make_home(host: WorkerHost, name: str) -> Path:
    home = host.sessions / name
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / "session.jsonl").write_text("{}\n")
    return home


async def left_behind(host: WorkerHost) -> tuple[Job, Path, Path]:
    """Return a job, its worktree with an uncommitted change, and its session home."""
    granted, worktree = await host.prepared()
    (worktree.path / "login.py").write_text("login\n")
    host.leases.drop(host.leases.require(granted.key))
    return granted.job, worktree.path, make_home(host, granted.job.id)


async def test_files_of_ended_jobs_are_removed_and_their_work_is_salvaged(host: WorkerHost) -> None:
    job, worktree, home = await left_behind(host)
    await ended(host, job)
    probe = make_home(host, "probe")
    for _ in range(2):
        await host.sweeper.sweep()
    assert [path.exists() for path in (worktree, home, probe)] == [False, False, True]
    kept = await host.salvage.kept(OWNER, NAME, job.id)
    assert kept is not None
    assert "+login" in (kept.patch or "")


async def test_a_job_that_is_being_stopped_keeps_its_files(host: WorkerHost) -> None:
    """Its workflow was terminated, and its row has a final status."""
    granted, worktree = await host.prepared()
    await ended(host, granted.job)
    await host.sweeper.sweep()
    assert worktree.path.exists()
    (worktree.path / "late.py").write_text("late\n")
    host.leases.drop(host.leases.require(granted.key))
    await host.sweeper.sweep()
    assert not worktree.path.exists()
    kept = await host.world.store.kept_work(granted.job.id)
    assert kept is not None
    assert "+late" in (kept.patch or "")


async def home_of_an_ended_job(host: WorkerHost, start: str) -> Path:
    """Make a session home of a job whose id starts with `start`."""
    job = await host.world.add_job(id=start * 8 + new_id()[8:])
    await ended(host, job)
    return make_home(host, job.id)


async def test_links_out_of_a_session_home_are_not_followed(
    host: WorkerHost, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work\n")
    home = await home_of_an_ended_job(host, "a")
    (home / "directory").symlink_to(kept)
    (home / "file").symlink_to(kept / "thesis.txt")
    (home / "name").hardlink_to(kept / "thesis.txt")
    linked = await home_of_an_ended_job(host, "b")
    shutil.rmtree(linked)
    linked.symlink_to(kept)
    await host.sweeper.sweep()
    assert list(host.sessions.iterdir()) == []
    assert (kept / "thesis.txt").read_text() == "years of work\n"


async def test_a_session_home_of_any_depth_is_removed(host: WorkerHost) -> None:
    home = await home_of_an_ended_job(host, "a")
    directory = os.open(home, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", 0o700, dir_fd=directory)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    await host.sweeper.sweep()
    assert not home.exists()


async def test_a_session_home_that_cannot_be_removed_blocks_no_other(
    host: WorkerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only root can create a file that its owner cannot delete."""
    homes = [await home_of_an_ended_job(host, start) for start in "abc"]
    (homes[0] / "held").touch()
    unlink = os.unlink

    def held(name: str, *, dir_fd: int) -> None:
        if name == "held":
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", held)
    await host.sweeper.sweep()
    monkeypatch.undo()
    assert [home.exists() for home in homes] == [True, False, False]
    assert [path.name for path in homes[0].iterdir()] == ["held"]
    text = f"Removing a session home ({homes[0].name}) failed and will be retried: [Errno 1]"
    assert text in caplog.text
    await host.sweeper.sweep()
    assert not homes[0].exists()


async def test_the_next_sweep_continues_a_long_removal(
    host: WorkerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = await home_of_an_ended_job(host, "a")
    with monkeypatch.context() as hurried:
        hurried.setattr(sweeper, "HOME_REMOVAL", timedelta())
        await host.sweeper.sweep()
    assert home.exists()
    assert "There was no time to delete all files" in caplog.text
    await host.sweeper.sweep()
    assert not home.exists()


@pytest.mark.parametrize(
    "name", ["src", "5b8f8a0e-4d7e-4a53-9b1c-6b1f2f3a9d10", "odd name", ".hidden"]
)
async def test_directories_of_unknown_jobs_stay(host: WorkerHost, name: str) -> None:
    mine = host.worktrees.root / "somebody" / "project" / name / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work\n")
    home = make_home(host, new_id())
    await host.sweeper.sweep()
    assert mine.read_text() == "years of work\n"
    assert home.exists()


async def test_unfinished_jobs_keep_their_files(host: WorkerHost) -> None:
    live, live_tree, live_home = await left_behind(host)
    cleaning, tree, home = await left_behind(host)
    await ended(host, cleaning, Phase.CLEANING_UP)
    await host.sweeper.sweep()
    assert all(path.exists() for path in (live_tree, live_home, tree, home))
    assert await host.salvage.kept(OWNER, NAME, live.id) is None


async def test_a_job_that_starts_during_a_sweep_keeps_its_files(
    world: World, forge: FakeGitHub, tmp_path: Path
) -> None:
    """Its files were listed before the store had the job."""
    outages = Outages(world.store)
    host = WorkerHost(tmp_path / "host", world, forge, store=outages.store)
    gone, tree, _ = await left_behind(host)
    await ended(host, gone)
    beginning = world.job(id="f" * 8 + new_id()[8:])
    worktree = host.worktrees.path(OWNER, NAME, beginning.id)
    await host.worktrees.create_for_branch(OWNER, NAME, beginning.id, "feature/new", "main")
    outages.gate.clear()
    sweeping = asyncio.create_task(host.sweeper.sweep())
    await eventually(lambda: outages.calls["get_job_state"] > 0)
    await world.store.create_job(beginning)
    home = make_home(host, beginning.id)
    outages.gate.set()
    await sweeping
    assert not tree.exists()
    assert worktree.exists()
    assert home.exists()


@pytest.fixture
async def sweeping_forever(
    world: World, forge: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[WorkerHost, Outages]]:
    """A host that sweeps all the time, and a store that is down."""
    monkeypatch.setattr(sweeper, "INTERVAL", timedelta(milliseconds=20))
    outages = Outages(world.store)
    host = WorkerHost(tmp_path / "host", world, forge, store=outages.store)
    await ended(host, (await left_behind(host))[0])
    outages.is_down = True
    running = asyncio.create_task(host.sweeper.run_forever())
    yield host, outages
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_sweeps_continue_after_an_outage(
    sweeping_forever: tuple[WorkerHost, Outages], caplog: pytest.LogCaptureFixture
) -> None:
    host, outages = sweeping_forever
    (home,) = host.sessions.iterdir()
    await eventually(lambda: outages.calls["get_job_state"] > 2)
    assert home.exists()
    assert "The sweep failed and will be retried: The store does not answer." in caplog.text
    outages.is_down = False
    await eventually(lambda: not home.exists())


async def test_idle_mirrors_are_packed_after_a_day_and_then_daily(
    host: WorkerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = asyncio.get_running_loop().time
    packed: list[float] = []

    async def pack_idle() -> list[Path]:
        packed.append(clock())
        return []

    monkeypatch.setattr(sweeper, "DAILY", timedelta(milliseconds=100))
    monkeypatch.setattr(host.sweeper._packing, "pack_idle", pack_idle)
    began = clock()
    running = asyncio.create_task(host.sweeper.run_forever())
    await eventually(lambda: len(packed) == 2)
    running.cancel()
    assert packed[0] - began > 0.1
    assert packed[1] - packed[0] > 0.1
