"""Removing what ended jobs left on a machine, and nothing else."""

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
from tests.integration.activities.machine import NAME, OWNER, Machine
from tests.integration.activities.outages import Outages
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World, new_id


async def ended(machine: Machine, job: Job, phase: Phase | None = None) -> None:
    changes: Any = {"status": JobStatus.FAILED, "phase": phase}
    assert await machine.world.store.update_job(job.id, changes, Guard(LIVE))


def make_home(machine: Machine, name: str) -> Path:
    home = machine.sessions / name
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / "session.jsonl").write_text("{}\n")
    return home


async def left_behind(machine: Machine) -> tuple[Job, Path, Path]:
    """A job with an unsaved change in its worktree and a session home."""
    granted, worktree = await machine.prepared()
    (worktree.path / "login.py").write_text("login\n")
    machine.leases.drop(machine.leases.require(granted.key))
    return granted.job, worktree.path, make_home(machine, granted.job.id)


async def test_what_ended_jobs_left_is_removed_and_their_work_kept(machine: Machine) -> None:
    job, worktree, home = await left_behind(machine)
    await ended(machine, job)
    probe = make_home(machine, "probe")
    for _ in range(2):
        await machine.sweeper.sweep()
    assert [path.exists() for path in (worktree, home, probe)] == [False, False, True]
    kept = await machine.salvage.kept(OWNER, NAME, job.id)
    assert kept is not None
    assert "+login" in (kept.patch or "")


async def test_what_is_still_being_stopped_stays(machine: Machine) -> None:
    """Its workflow was terminated, and its row is closed already."""
    granted, worktree = await machine.prepared()
    await ended(machine, granted.job)
    await machine.sweeper.sweep()
    assert worktree.path.exists()
    (worktree.path / "late.py").write_text("late\n")
    machine.leases.drop(machine.leases.require(granted.key))
    await machine.sweeper.sweep()
    assert not worktree.path.exists()
    kept = await machine.world.store.kept_work(granted.job.id)
    assert kept is not None
    assert "+late" in (kept.patch or "")


async def home_of_an_ended_job(machine: Machine, start: str) -> Path:
    """Make a session home of a job whose id begins so."""
    job = await machine.world.add_job(id=start * 8 + new_id()[8:])
    await ended(machine, job)
    return make_home(machine, job.id)


async def test_links_out_of_a_session_home_are_not_followed(
    machine: Machine, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work\n")
    home = await home_of_an_ended_job(machine, "a")
    (home / "directory").symlink_to(kept)
    (home / "file").symlink_to(kept / "thesis.txt")
    (home / "name").hardlink_to(kept / "thesis.txt")
    linked = await home_of_an_ended_job(machine, "b")
    shutil.rmtree(linked)
    linked.symlink_to(kept)
    await machine.sweeper.sweep()
    assert list(machine.sessions.iterdir()) == []
    assert (kept / "thesis.txt").read_text() == "years of work\n"


async def test_a_session_home_of_any_depth_is_removed(machine: Machine) -> None:
    home = await home_of_an_ended_job(machine, "a")
    directory = os.open(home, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", 0o700, dir_fd=directory)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    await machine.sweeper.sweep()
    assert not home.exists()


async def test_a_session_home_that_cannot_be_removed_holds_no_other_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only root can make a file that its owner cannot delete."""
    homes = [await home_of_an_ended_job(machine, start) for start in "abc"]
    (homes[0] / "held").touch()
    unlink = os.unlink

    def held(name: str, *, dir_fd: int) -> None:
        if name == "held":
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", held)
    await machine.sweeper.sweep()
    monkeypatch.undo()
    assert [home.exists() for home in homes] == [True, False, False]
    assert [path.name for path in homes[0].iterdir()] == ["held"]
    text = f"A part of job {homes[0].name}'s session home is left for later: [Errno 1] Operation"
    assert text in caplog.text
    await machine.sweeper.sweep()
    assert not homes[0].exists()


async def test_a_session_home_that_takes_long_waits_for_the_next_sweep(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = await home_of_an_ended_job(machine, "a")
    with monkeypatch.context() as hurried:
        hurried.setattr(sweeper, "HOME_REMOVAL", timedelta())
        await machine.sweeper.sweep()
    assert home.exists()
    assert "There was no time to delete all files" in caplog.text
    await machine.sweeper.sweep()
    assert not home.exists()


@pytest.mark.parametrize(
    "name", ["src", "5b8f8a0e-4d7e-4a53-9b1c-6b1f2f3a9d10", "odd name", ".hidden"]
)
async def test_what_is_of_no_job_of_ours_stays(machine: Machine, name: str) -> None:
    mine = machine.worktrees.root / "somebody" / "project" / name / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work\n")
    home = make_home(machine, new_id())
    await machine.sweeper.sweep()
    assert mine.read_text() == "years of work\n"
    assert home.exists()


async def test_jobs_that_live_or_clean_up_are_left_alone(machine: Machine) -> None:
    live, live_tree, live_home = await left_behind(machine)
    cleaning, tree, home = await left_behind(machine)
    await ended(machine, cleaning, Phase.CLEANING_UP)
    await machine.sweeper.sweep()
    assert all(path.exists() for path in (live_tree, live_home, tree, home))
    assert await machine.salvage.kept(OWNER, NAME, live.id) is None


async def test_a_job_that_begins_meanwhile_is_left_alone(
    world: World, forge: FakeGitHub, tmp_path: Path
) -> None:
    """Its files were listed when the store did not know it yet."""
    outages = Outages(world.store)
    machine = Machine(tmp_path / "machine", world, forge, store=outages.store)
    gone, tree, _ = await left_behind(machine)
    await ended(machine, gone)
    beginning = world.job(id="f" * 8 + new_id()[8:])
    worktree = machine.worktrees.path(OWNER, NAME, beginning.id)
    await machine.worktrees.create_for_branch(OWNER, NAME, beginning.id, "feature/new", "main")
    outages.gate.clear()
    sweeping = asyncio.create_task(machine.sweeper.sweep())
    await eventually(lambda: outages.calls["get_job"] > 0)
    await world.store.create_job(beginning)
    home = make_home(machine, beginning.id)
    outages.gate.set()
    await sweeping
    assert not tree.exists()
    assert worktree.exists()
    assert home.exists()


@pytest.fixture
async def sweeping_forever(
    world: World, forge: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Machine, Outages]]:
    """A machine that sweeps at every moment, and a store that is down."""
    monkeypatch.setattr(sweeper, "INTERVAL", timedelta(milliseconds=20))
    outages = Outages(world.store)
    machine = Machine(tmp_path / "machine", world, forge, store=outages.store)
    await ended(machine, (await left_behind(machine))[0])
    outages.is_down = True
    running = asyncio.create_task(machine.sweeper.run_forever())
    yield machine, outages
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_sweep_waits_for_the_store(
    sweeping_forever: tuple[Machine, Outages], caplog: pytest.LogCaptureFixture
) -> None:
    machine, outages = sweeping_forever
    (home,) = machine.sessions.iterdir()
    await eventually(lambda: outages.calls["get_job"] > 2)
    assert home.exists()
    assert "The sweep waits: The store does not answer." in caplog.text
    outages.is_down = False
    await eventually(lambda: not home.exists())


async def test_idle_mirrors_are_packed_once_a_day(
    sweeping_forever: tuple[Machine, Outages], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, outages = sweeping_forever
    monkeypatch.setattr(sweeper, "SWEEPS_A_DAY", 3)
    packed: list[int] = []

    async def pack_idle() -> list[Path]:
        packed.append(outages.calls["get_job"])
        return []

    monkeypatch.setattr(machine.sweeper._packing, "pack_idle", pack_idle)
    outages.is_down = False
    await eventually(lambda: len(packed) == 2)
