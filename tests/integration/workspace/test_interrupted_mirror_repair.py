"""Workers that are killed while they replace a damaged mirror, and jobs that run then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude, until
from workspace.mirrors import repair
from workspace.publishing import Head
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree


class Killed(BaseException):
    """Simulates the death of the process."""


@dataclass(frozen=True)
class Jobs:
    """The work of two jobs in a mirror that is damaged afterwards.

    Args:
        kept: the work of the job that has ended.
        live: the worktree of the other job, with a commit and a new file.
        by_claude: that commit, which is in the mirror.
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
async def jobs(host: Host) -> Jobs:
    (await host.start("ended")).path.joinpath("edit").write_text("work")
    kept = await host.removal.remove(OWNER, NAME, "ended")
    live = await host.start("live")
    by_claude = commit(live, "one")
    await host.publishing.head(live)
    (live.path / "two").write_text("two\n")
    (host.mirror_path / "lfs/objects").mkdir(parents=True)
    (host.mirror_path / "lfs/objects/old").write_text("old")
    (host.mirror_path / "damaged").touch()
    return Jobs(kept, live, by_claude)


def die(*arguments: object) -> None:
    raise Killed


def on_rename(
    monkeypatch: pytest.MonkeyPatch, is_last_rename: Callable[[Path, Path], bool]
) -> None:
    rename = Path.rename

    def guarded(source: Path, target: Path) -> Path:
        if is_last_rename(source, target):
            die()
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", guarded)


def before_anything_moves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rename(monkeypatch, lambda source, target: source == host.mirror_path)


def before_the_new_mirror_is_in_place(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rename(monkeypatch, lambda source, target: target == host.mirror_path)


def before_the_rest_is_carried_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "finish_replacement", die)


def before_the_lfs_files_move(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rename(monkeypatch, lambda source, target: source.name == "lfs")


def before_it_is_marked_as_done(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def guarded(file: Path, missing_ok: bool = False) -> None:
        if file.is_symlink():
            die()
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", guarded)


STEPS = [
    before_anything_moves, before_the_new_mirror_is_in_place, before_the_rest_is_carried_over,
    before_the_lfs_files_move, before_it_is_marked_as_done,
]  # fmt: skip
Step = Callable[[Host, pytest.MonkeyPatch], None]


async def interrupt(host: Host, step: Step) -> None:
    """Fetch, which replaces the mirror, and die at `step`."""
    with pytest.MonkeyPatch.context() as patched:
        step(host, patched)
        with pytest.raises(Killed):
            await host.mirrors.fetch(OWNER, NAME)


async def require_nothing_lost(host: Host, jobs: Jobs) -> None:
    assert await host.worktrees.find(OWNER, NAME, "live") == jobs.live
    assert as_claude(jobs.live.path, "rev-parse", "HEAD") == jobs.by_claude
    assert as_claude(jobs.live.path, "status", "--porcelain") == "?? two"
    assert (host.mirror_path / "lfs/objects/old").read_text() == "old"
    assert await host.salvage.kept(OWNER, NAME, "ended") == jobs.kept is not None


async def fetched(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)


async def another_started(host: Host) -> None:
    await host.start("next")


async def nothing(host: Host) -> None:
    pass


@pytest.mark.parametrize("then", [fetched, another_started, nothing])
@pytest.mark.parametrize("step", STEPS)
async def test_killed_worker_loses_nothing(
    host: Host, jobs: Jobs, step: Step, then: Callable[[Host], Awaitable[None]]
) -> None:
    await interrupt(host, step)
    await then(host)
    await require_nothing_lost(host, jobs)
    await host.mirrors.fetch(OWNER, NAME)
    await require_nothing_lost(host, jobs)
    assert not (host.mirror_path / "damaged").exists()
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    await host.publish(jobs.live)
    assert host.remote_log("feature/live") == ["Do it", "Claude: one", "Initial commit"]


@pytest.mark.parametrize("step", STEPS[3:])
async def test_second_killed_worker_loses_nothing(host: Host, jobs: Jobs, step: Step) -> None:
    await interrupt(host, before_the_rest_is_carried_over)
    await interrupt(host, step)
    await require_nothing_lost(host, jobs)


@pytest.mark.parametrize("step", STEPS)
async def test_work_of_a_job_that_ends_during_the_repair_is_kept(
    host: Host, jobs: Jobs, step: Step
) -> None:
    await interrupt(host, step)
    kept = await host.removal.remove(OWNER, NAME, "live")
    assert kept is not None
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert {"one", "two"} <= set(names.splitlines())
    assert not host.worktrees.orphaned.exists()


@pytest.mark.parametrize("step", STEPS)
async def test_commit_can_be_pushed_during_the_repair(host: Host, jobs: Jobs, step: Step) -> None:
    await interrupt(host, step)
    await host.publishing.push(OWNER, NAME, jobs.by_claude, "feature/live", None)
    assert host.remote()["feature/live"] == jobs.by_claude


async def test_commits_transferred_during_the_repair_are_kept(
    host: Host, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_over = repair.carry_over
    bringing: list[asyncio.Task[Head]] = []

    async def slow(*arguments: object) -> None:
        await carry_over(*arguments)  # type: ignore[arg-type]
        if not bringing:
            late = commit(jobs.live, "late")
            as_claude(host.mirror_path, "hash-object", "-w", str(jobs.live.path / "two"))
            bringing.append(asyncio.create_task(host.publishing.head(jobs.live)))
            # Wait until it waits for the lock.
            await until(lambda: bool([*host.mirrors.scratch.glob("private-*/job.idx")]))
            assert not await host.mirrors.has_commit(host.mirrors.mirror(OWNER, NAME), late)

    monkeypatch.setattr(repair, "carry_over", slow)
    await host.mirrors.fetch(OWNER, NAME)
    assert list(host.mirrors.damaged.iterdir())
    head = await bringing[0]
    assert as_claude(jobs.live.path, "rev-parse", "feature/live", "HEAD").split() == [head.sha] * 2
    written = as_claude(jobs.live.path, "hash-object", "two")
    assert as_claude(host.mirror_path, "cat-file", "-t", written) == "blob"
    await host.publish(jobs.live)
    assert host.remote_log("feature/live")[1:3] == ["Claude: late", "Claude: one"]


async def test_files_written_during_the_repair_are_merged(host: Host, jobs: Jobs) -> None:
    await interrupt(host, before_the_lfs_files_move)
    (host.mirror_path / "lfs/objects").mkdir(parents=True)
    (host.mirror_path / "lfs/objects/new").write_text("new")
    await require_nothing_lost(host, jobs)
    files = sorted(file.name for file in (host.mirror_path / "lfs/objects").iterdir())
    assert files == ["new", "old"]
