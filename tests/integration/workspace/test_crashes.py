"""Workers killed while they make, keep or publish a worktree, and what their successors find."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import CLAUDE, FILES, NAME, OWNER, Room, as_claude, until
from workspace.worktree.worktree import Worktree

WORKER = """
import asyncio, importlib, os, signal, sys
from pathlib import Path
from workspace.git.runner import Git
from workspace.git.credentials import GitCredentials
from workspace.git.author import Identity
from workspace.mirrors.mirrors import Mirrors
from workspace.publishing import Publishing
from workspace.lifecycle.removal import Removal
from workspace.salvage.salvage import Salvage
from workspace.lifecycle.worktrees import Worktrees

def die_at(module, name, number):
    # Before the call with this number.
    owner, left = importlib.import_module(module), [int(number)]
    *classes, name = name.split(".")
    for each in classes:
        owner = getattr(owner, each)
    function = getattr(owner, name)
    def counted(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    setattr(owner, name, counted)

async def make(worktrees, owner, name, branch, kept_base, kept_head):
    await worktrees.mirrors.fetch(owner, name)
    if kept_base:
        kept = ("ended", kept_base, kept_head, None)
        await worktrees.create_from_salvage(owner, name, "job", branch, *kept)
    elif branch:
        await worktrees.create_for_branch(owner, name, "job", branch, "main")
    else:
        await worktrees.create_detached(owner, name, "job", None)

async def remove(worktrees, owner, name):
    await Removal(worktrees, Salvage(worktrees)).remove(owner, name, "job")

async def publish(worktrees, owner, name):
    publishing = Publishing(worktrees)
    worktree = await worktrees.find(owner, name, "job")
    await publishing.commit_all(worktree, "Do it", Identity("Claude", "claude@example.invalid"))
    sha = (await publishing.head(worktree)).sha
    await publishing.push(owner, name, sha, worktree.branch, worktree.expected_remote)

async def main(data, url, token, search_path, death, act, *arguments):
    if death:
        die_at(*death.split(":"))
    mirrors = Mirrors(Path(data, "mirrors"), Git(search_path), GitCredentials(url, Path(token)))
    await globals()[act](Worktrees(Path(data, "worktrees"), mirrors), *arguments)

asyncio.run(main(*sys.argv[1:]))
"""
# Stands in front of git and stays where it is told to, before or after git did its work.
STUCK_GIT = """#!/bin/sh
stay() {{ echo $$ > {directory}/draft; mv {directory}/draft {directory}/stuck; exec sleep 600; }}
case " $* " in *" {command} "*)
  test {moment} = before && stay
  {git} "$@"
  stay
esac
exec {git} "$@"
"""


class Worker:
    """A process that dies in the middle of what it does, or gets stuck there.

    Args:
        room: whose directories it works in.
        moment: a git command with `before` or `after`, where it gets stuck; or a function with its
            module and the number of the call, before which it dies.
        act: a function of WORKER, and its arguments.
    """

    def __init__(self, room: Room, moment: str, act: str, *arguments: str) -> None:
        self.directory = room.directory / "stuck"
        self.directory.mkdir()
        search_path, death = room.git.search_path, moment
        when, _, command = moment.partition(" ")
        if when in ("before", "after"):
            git = self.directory / "git"
            git.write_text(
                STUCK_GIT.format(
                    directory=self.directory, command=command, moment=when, git=shutil.which("git")
                )
            )
            git.chmod(0o755)
            search_path, death = f"{self.directory}:{search_path}", ""
        where = (room.directory, room.forge.url, room.token_file, search_path)
        self.process = subprocess.Popen(
            (sys.executable, "-c", WORKER, *map(str, where), death, act, OWNER, NAME, *arguments),
            cwd=Path(__file__).parents[3],
        )

    def is_stuck(self) -> bool:
        if self.process.poll() is not None:
            assert self.process.returncode == -signal.SIGKILL
            return True
        return (self.directory / "stuck").exists()

    def kill(self) -> None:
        """Kill the worker alone, as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()

    def kill_git(self) -> None:
        """Kill the command it was waiting for, and all that belongs to it."""
        if (self.directory / "stuck").exists():
            stuck = int((self.directory / "stuck").read_text())
            os.killpg(os.getpgid(stuck), signal.SIGKILL)
            (self.directory / "stuck").unlink()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.kill()
        worker.kill_git()


async def killed(workers: list[Worker], worker: Worker) -> None:
    """Wait until a worker is where it was to die, and end it with all it has started."""
    workers.append(worker)
    await until(worker.is_stuck)
    worker.kill()
    worker.kill_git()


async def make(room: Room, branch: str) -> Worktree:
    if branch:
        return await room.start("job", branch)
    await room.mirrors.fetch(OWNER, NAME)
    return await room.worktrees.create_detached(OWNER, NAME, "job", None)


MAKING = [
    "workspace.worktree.private_repository:make:1",
    # One file after the other: packed-refs, the branch, HEAD, the configuration, the alternates.
    *(f"workspace.worktree.private_repository:_put:{number}" for number in range(1, 6)),
    "workspace.worktree.private_repository:restore_pointers:1",
    "before reset",
    "after reset",
    "workspace.lifecycle.worktrees:write_record:1",
]


@pytest.mark.parametrize("moment", MAKING)
async def test_a_half_made_worktree_is_made_again(
    room: Room, workers: list[Worker], moment: str
) -> None:
    branch = "" if moment == "before reset" else "feature/x"
    await killed(workers, Worker(room, moment, "make", branch, "", ""))
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    worktree = await make(room, branch)
    assert worktree.base_sha == room.remote()["main"]
    assert {name: (worktree.path / name).read_text() for name in FILES} == FILES
    assert as_claude(worktree.path, "status", "--porcelain") == ""
    left = {entry.name for entry in worktree.path.parent.iterdir()}
    assert left == {"job", "job.git", "job.json", "job.lock"}
    assert not room.worktrees.orphaned.exists()


@pytest.mark.parametrize(
    "moment",
    [
        "workspace.worktree.private_repository:_put:4",
        "after reset --quiet --hard",
        "before reset --quiet --soft",
        "after reset --quiet --soft",
    ],
)
async def test_half_taken_up_work_is_taken_up_again(
    room: Room, workers: list[Worker], moment: str
) -> None:
    (await room.start("ended")).path.joinpath("new").write_text("x")
    kept = await room.removal.remove(OWNER, NAME, "ended")
    assert kept is not None
    await killed(workers, Worker(room, moment, "make", "again", kept.base_sha, kept.head_sha))
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    worktree = await room.worktrees.create_from_salvage(
        OWNER, NAME, "job", "again", "ended", kept.base_sha, kept.head_sha, None
    )
    assert as_claude(worktree.path, "rev-parse", "HEAD") == kept.base_sha
    assert as_claude(worktree.path, "status", "--porcelain") == "A  new"
    assert await room.salvage.kept(OWNER, NAME, "ended") == kept


async def test_a_command_that_outlives_its_worker_is_waited_for(
    room: Room, workers: list[Worker]
) -> None:
    worker = Worker(room, "before reset", "make", "feature/x", "", "")
    workers.append(worker)
    await until(worker.is_stuck)
    worker.kill()
    making = asyncio.create_task(room.start("job", "feature/x"))
    done, _ = await asyncio.wait([making], timeout=0.5)
    assert not done
    worker.kill_git()
    assert (await making).path.is_dir()


async def test_what_a_kill_in_the_middle_leaves_is_removed_too(
    room: Room, workers: list[Worker]
) -> None:
    await killed(workers, Worker(room, "before reset", "make", "", "", ""))

    async def is_needed(job_id: str) -> bool:
        return False

    assert await room.removal.sweep(is_needed) == ["job"]
    half = room.worktrees.at(OWNER, NAME, "job")
    assert not half.path.exists()
    assert not half.git_dir.exists()
    assert not room.worktrees.orphaned.exists()


async def begin(room: Room) -> tuple[Worktree, str]:
    """Leave a commit and a new file, and return the worktree and the commit."""
    worktree = await room.start("job")
    (worktree.path / "one").write_text("1\n")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2\n")
    return worktree, as_claude(worktree.path, "rev-parse", "HEAD")


CROSSING = [
    "before pack-objects",
    "after pack-objects",
    "after index-pack",
    "workspace.mirrors.object_transfer:_move:1",
    # The pack is in the mirror, and its index is not.
    "pathlib:Path.replace:2",
    "workspace.mirrors.object_transfer:copy_lfs_files:1",
]
REMOVING = [
    "before update-ref",
    "after update-ref",
    "workspace.lifecycle.worktrees:delete_record:1",
    "workspace.lifecycle.worktrees:move_aside:1",
    "workspace.lifecycle.worktrees:move_aside:2",
    "workspace.lifecycle.worktrees:delete_tree:1",
]


@pytest.mark.parametrize("moment", CROSSING + REMOVING)
async def test_work_is_kept_whenever_the_removal_is_killed(
    room: Room, workers: list[Worker], moment: str
) -> None:
    worktree, by_claude = await begin(room)
    await killed(workers, Worker(room, moment, "remove"))
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    lines = as_claude(room.mirror_path, "log", "--format=%s", kept.head_sha).splitlines()
    assert lines[-2:] == ["By Claude", "Initial commit"]
    assert as_claude(room.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert names.splitlines() == sorted([*FILES, "one", "two"])
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    assert not room.worktrees.orphaned.exists()


@pytest.mark.parametrize("moment", ["before commit", "after commit", *CROSSING, "after push"])
async def test_work_is_published_once_whenever_that_is_killed(
    room: Room, workers: list[Worker], moment: str
) -> None:
    await begin(room)
    await killed(workers, Worker(room, moment, "publish"))
    worktree = await room.worktrees.find(OWNER, NAME, "job")
    assert worktree is not None
    sha = await room.publish(worktree)
    assert room.remote()["feature/job"] == sha
    assert room.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]
    await room.publishing.commit_all(worktree, "Again", CLAUDE)
    assert (await room.publishing.head(worktree)).sha == sha


async def test_a_record_without_an_end_does_not_count(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    record = worktree.path.with_name("job.json")
    record.write_text(record.read_text()[:-5])
    assert await room.worktrees.find(OWNER, NAME, "job") is None
