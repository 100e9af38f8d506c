"""Workers killed while they make a worktree or push, and what their successors find."""

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

from tests.workspace.conftest import FILES, NAME, OWNER, Room, as_claude, until
from workspace.worktree import Worktree

WORKER = """
import asyncio, sys
from pathlib import Path
from workspace.command import Git
from workspace.credentials import GitCredentials
from workspace.mirrors import Mirrors
from workspace.worktrees import Worktrees

async def main(data, url, token, search_path, owner, name, branch, kept_base, kept_head):
    credentials = GitCredentials(url, Path(token))
    mirrors = Mirrors(Path(data, "mirrors"), Git(search_path), credentials)
    worktrees = Worktrees(Path(data, "worktrees"), mirrors)
    await mirrors.fetch(owner, name)
    if kept_base:
        kept = ("ended", kept_base, kept_head, None)
        await worktrees.create_from_kept(owner, name, "job", branch, *kept)
    elif branch:
        await worktrees.create_for_branch(owner, name, "job", branch, "main")
    else:
        await worktrees.create_detached(owner, name, "job", None)

asyncio.run(main(*sys.argv[1:]))
"""
# Stands in front of git and stays where it is told to, before or after git did its work.
STUCK_GIT = """#!/bin/sh
stay() {{ echo $$ > {directory}/draft; mv {directory}/draft {directory}/stuck; exec sleep 600; }}
case " $* " in *" {command} "*)
  test {moment} = before && stay
  {git} {options} "$@"
  stay
esac
exec {git} "$@"
"""
# Runs in the middle of `git worktree add`, when the directory is there and still locked.
STUCK_HOOK = """#!/bin/sh
echo $PPID > {directory}/draft; mv {directory}/draft {directory}/stuck; exec sleep 600
"""


class Worker:
    """A process that makes a worktree and gets stuck in the middle of it."""

    def __init__(
        self, room: Room, command: str, moment: str, branch: str, kept: tuple[str, str] = ("", "")
    ) -> None:
        self.directory = room.directory / "stuck"
        self.directory.mkdir()
        git = shutil.which("git")
        options = f"-c core.hooksPath={self.directory}" if moment == "hook" else ""
        self._program("reference-transaction", STUCK_HOOK.format(directory=self.directory))
        stuck = STUCK_GIT.format(
            directory=self.directory, command=command, moment=moment, git=git, options=options
        )
        self._program("git", stuck)
        search_path = f"{self.directory}:{room.git.search_path}"
        arguments = (room.directory, room.forge.url, room.token_file, search_path, OWNER, NAME)
        self.process = subprocess.Popen(
            (sys.executable, "-c", WORKER, *map(str, arguments), branch, *kept),
            cwd=Path(__file__).parents[2],
        )

    def is_stuck(self) -> bool:
        assert self.process.poll() is None
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

    def _program(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o755)


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.kill()
        worker.kill_git()


async def make(room: Room, branch: str) -> Worktree:
    if branch:
        return await room.start("job", branch)
    await room.mirrors.fetch(OWNER, NAME)
    return await room.worktrees.create_detached(OWNER, NAME, "job", None)


@pytest.mark.parametrize(
    ("command", "moment", "branch"),
    [
        ("worktree add", "before", "feature/x"),
        ("worktree add", "hook", "feature/x"),
        ("worktree add", "hook", ""),
        ("worktree add", "after", "feature/x"),
        ("worktree add", "after", ""),
        ("reset", "before", "feature/x"),
        ("reset", "after", "feature/x"),
    ],
)
async def test_a_half_made_worktree_is_made_again(
    room: Room, workers: list[Worker], command: str, moment: str, branch: str
) -> None:
    worker = Worker(room, command, moment, branch)
    workers.append(worker)
    await until(worker.is_stuck)
    if moment == "hook" and not branch:
        assert (room.worktrees.at(OWNER, NAME, "job").git_dir / "locked").exists()
    worker.kill()
    worker.kill_git()
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    worktree = await make(room, branch)
    assert worktree.base_sha == room.remote()["main"]
    assert {name: (worktree.path / name).read_text() for name in FILES} == FILES
    assert as_claude(worktree.path, "status", "--porcelain") == ""
    assert len(list((worktree.mirror / "worktrees").iterdir())) == 1


@pytest.mark.parametrize(
    ("command", "moment"),
    [
        ("worktree add", "hook"),
        ("worktree add", "after"),
        ("reset --quiet --hard", "after"),
        ("reset --quiet --soft", "before"),
        ("reset --quiet --soft", "after"),
    ],
)
async def test_half_taken_up_work_is_taken_up_again(
    room: Room, workers: list[Worker], command: str, moment: str
) -> None:
    (await room.start("ended")).path.joinpath("new").write_text("x")
    kept = await room.removal.remove(OWNER, NAME, "ended")
    assert kept is not None
    worker = Worker(room, command, moment, "again", (kept.base_sha, kept.head_sha))
    workers.append(worker)
    await until(worker.is_stuck)
    worker.kill()
    worker.kill_git()
    assert await room.worktrees.find(OWNER, NAME, "job") is None
    worktree = await room.worktrees.create_from_kept(
        OWNER, NAME, "job", "again", "ended", kept.base_sha, kept.head_sha, None
    )
    assert as_claude(worktree.path, "rev-parse", "HEAD") == kept.base_sha
    assert as_claude(worktree.path, "status", "--porcelain") == "A  new"
    assert await room.salvage.kept(OWNER, NAME, "ended") == kept


async def test_a_command_that_outlives_its_worker_is_waited_for(
    room: Room, workers: list[Worker]
) -> None:
    worker = Worker(room, "worktree add", "before", "feature/x")
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
    worker = Worker(room, "worktree add", "hook", "")
    workers.append(worker)
    await until(worker.is_stuck)
    worker.kill()
    worker.kill_git()

    async def is_needed(job_id: str) -> bool:
        return False

    assert await room.removal.sweep(is_needed) == ["job"]
    half = room.worktrees.at(OWNER, NAME, "job")
    assert not half.path.exists()
    assert not half.git_dir.exists()


async def test_a_record_without_an_end_does_not_count(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    record = worktree.path.with_name("job.json")
    record.write_text(record.read_text()[:-5])
    assert await room.worktrees.find(OWNER, NAME, "job") is None
