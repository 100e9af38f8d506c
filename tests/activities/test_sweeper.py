"""Removing what ended jobs left on a machine, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities import sweeping
from demo.forge import Forge
from domain.jobs import LIVE, Job, JobStatus, Phase
from store.protocol import Guard
from tests.activities.machine import NAME, OWNER, Machine
from tests.activities.outages import Outages
from tests.store.samples import World, new_id
from tests.workflows.server import eventually


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
    world: World, forge: Forge, tmp_path: Path
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
    world: World, forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Machine, Outages]]:
    """A machine that sweeps at every moment, and a store that is down."""
    monkeypatch.setattr(sweeping, "INTERVAL", timedelta(milliseconds=20))
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
    monkeypatch.setattr(sweeping, "SWEEPS_A_DAY", 3)
    packed: list[int] = []

    async def pack_idle() -> list[Path]:
        packed.append(outages.calls["get_job"])
        return []

    monkeypatch.setattr(machine.sweeper._upkeep, "pack_idle", pack_idle)
    outages.is_down = False
    await eventually(lambda: len(packed) == 2)
