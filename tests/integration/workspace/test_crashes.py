"""Workers that are killed while they create, keep or publish a worktree."""

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

from tests.integration.workspace.conftest import (
    CLAUDE,
    FILES,
    NAME,
    OWNER,
    Host,
    as_claude,
    is_kept_waiting,
    until,
)
from workspace.worktree.worktree import Worktree

WORKER = """
import asyncio, importlib, os, signal, sys
from pathlib import Path
from workspace.git.runner import Git
from workspace.git.credentials import GitCredentials
from workspace.author import Identity
from workspace.mirrors.mirrors import Mirrors
from workspace.publishing import Publishing
from workspace.lifecycle.removal import Removal
from workspace.salvage.salvage import Salvage
from workspace.lifecycle.worktrees import Worktrees

def die_at(module, name, number):
    # Die before the call with this number.
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
# Replaces git on the PATH, and blocks before or after one command.
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
    """A process that dies or blocks at one point of its work.

    Args:
        host: the host whose directories it uses.
        moment: `before` or `after` and a git command, where it blocks; or
            `<module>:<function>:<number>`, where it dies before the call with this number.
        act: a function of WORKER.
        arguments: the arguments of the function.
    """

    def __init__(self, host: Host, moment: str, act: str, *arguments: str) -> None:
        self.directory = host.directory / "stuck"
        self.directory.mkdir()
        search_path, death = host.git.search_path, moment
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
        where = (host.directory, host.github.url, host.token_file, search_path)
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
        """Kill only the worker, as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()

    def kill_git(self) -> None:
        """Kill the git command that it waits for, with its process group."""
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


async def run_until_killed(workers: list[Worker], worker: Worker) -> None:
    """Wait until a worker reaches its moment, and kill it with its git command."""
    workers.append(worker)
    await until(worker.is_stuck)
    worker.kill()
    worker.kill_git()


async def make(host: Host, branch: str) -> Worktree:
    if branch:
        return await host.start("job", branch)
    await host.mirrors.fetch(OWNER, NAME)
    return await host.worktrees.create_detached(OWNER, NAME, "job", None)


MAKING = [
    "workspace.worktree.private_repository:make:1",
    # In this order: packed-refs, the branch, HEAD, the configuration, the alternates.
    *(f"workspace.worktree.private_repository:_put:{number}" for number in range(1, 6)),
    "workspace.worktree.private_repository:restore_pointers:1",
    "before reset",
    "after reset",
    "workspace.lifecycle.worktrees:write_record:1",
]


@pytest.mark.parametrize("moment", MAKING)
async def test_incomplete_worktree_is_created_again(
    host: Host, workers: list[Worker], moment: str
) -> None:
    branch = "" if moment == "before reset" else "feature/x"
    await run_until_killed(workers, Worker(host, moment, "make", branch, "", ""))
    assert await host.worktrees.find(OWNER, NAME, "job") is None
    worktree = await make(host, branch)
    assert worktree.base_sha == host.remote()["main"]
    assert {name: (worktree.path / name).read_text() for name in FILES} == FILES
    assert as_claude(worktree.path, "status", "--porcelain") == ""
    left = {entry.name for entry in worktree.path.parent.iterdir()}
    assert left == {"job", "job.git", "job.json", "job.lock"}
    assert not host.worktrees.orphaned.exists()


@pytest.mark.parametrize(
    "moment",
    [
        "workspace.worktree.private_repository:_put:4",
        "after reset --quiet --hard",
        "before reset --quiet --soft",
        "after reset --quiet --soft",
    ],
)
async def test_incomplete_restore_is_repeated(
    host: Host, workers: list[Worker], moment: str
) -> None:
    (await host.start("ended")).path.joinpath("new").write_text("x")
    kept = await host.removal.remove(OWNER, NAME, "ended")
    assert kept is not None
    await run_until_killed(
        workers, Worker(host, moment, "make", "again", kept.base_sha, kept.head_sha)
    )
    assert await host.worktrees.find(OWNER, NAME, "job") is None
    worktree = await host.worktrees.create_from_salvage(
        OWNER, NAME, "job", "again", "ended", kept.base_sha, kept.head_sha, None
    )
    assert as_claude(worktree.path, "rev-parse", "HEAD") == kept.base_sha
    assert as_claude(worktree.path, "status", "--porcelain") == "A  new"
    assert await host.salvage.kept(OWNER, NAME, "ended") == kept


async def test_git_command_that_outlives_its_worker_keeps_the_lock(
    host: Host, workers: list[Worker], failed_attempts: list[int]
) -> None:
    worker = Worker(host, "before reset", "make", "feature/x", "", "")
    workers.append(worker)
    await until(worker.is_stuck)
    worker.kill()
    making = asyncio.create_task(host.start("job", "feature/x"))
    assert await is_kept_waiting(making, failed_attempts)
    worker.kill_git()
    assert (await making).path.is_dir()


async def test_sweep_removes_an_incomplete_worktree(host: Host, workers: list[Worker]) -> None:
    await run_until_killed(workers, Worker(host, "before reset", "make", "", "", ""))

    async def is_needed(job_id: str) -> bool:
        return False

    assert await host.removal.sweep(is_needed) == ["job"]
    half = host.worktrees.at(OWNER, NAME, "job")
    assert not half.path.exists()
    assert not half.git_dir.exists()
    assert not host.worktrees.orphaned.exists()


async def start_with_work(host: Host) -> tuple[Worktree, str]:
    """Create a commit and a new file, and return the worktree and the commit."""
    worktree = await host.start("job")
    (worktree.path / "one").write_text("1\n")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2\n")
    return worktree, as_claude(worktree.path, "rev-parse", "HEAD")


TRANSFERRING = [
    "before pack-objects",
    "after pack-objects",
    "after index-pack",
    "workspace.mirrors.object_transfer:_move:1",
    # The pack is in the mirror, but its index is not.
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


@pytest.mark.parametrize("moment", TRANSFERRING + REMOVING)
async def test_work_is_kept_if_the_removal_is_killed(
    host: Host, workers: list[Worker], moment: str
) -> None:
    worktree, by_claude = await start_with_work(host)
    await run_until_killed(workers, Worker(host, moment, "remove"))
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    lines = as_claude(host.mirror_path, "log", "--format=%s", kept.head_sha).splitlines()
    assert lines[-2:] == ["By Claude", "Initial commit"]
    assert as_claude(host.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", kept.head_sha)
    assert names.splitlines() == sorted([*FILES, "one", "two"])
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    assert not host.worktrees.orphaned.exists()


@pytest.mark.parametrize("moment", ["before commit", "after commit", *TRANSFERRING, "after push"])
async def test_work_is_published_once_if_publishing_is_killed(
    host: Host, workers: list[Worker], moment: str
) -> None:
    await start_with_work(host)
    await run_until_killed(workers, Worker(host, moment, "publish"))
    worktree = await host.worktrees.find(OWNER, NAME, "job")
    assert worktree is not None
    sha = await host.publish(worktree)
    assert host.remote()["feature/job"] == sha
    assert host.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]
    await host.publishing.commit_all(worktree, "Again", CLAUDE)
    assert (await host.publishing.head(worktree)).sha == sha


async def test_truncated_record_is_ignored(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    record = worktree.path.with_name("job.json")
    record.write_text(record.read_text()[:-5])
    assert await host.worktrees.find(OWNER, NAME, "job") is None
