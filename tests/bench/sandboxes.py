"""Overhead of the sandbox on the start of Claude, and on one git command of the worker."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.claude.executable import find_executable
from agent.process.child import SupervisedChild
from domain.configuration.isolation import Network
from sandbox.containment import Containment, Reach, Uncontained
from sandbox.gateway import Gateway, Passage
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.policy import Policy
from sandbox.supervision.limits import Limits
from tests.sandboxes import real_sandbox
from workspace.git.runner import Git, GitLocation

RUNS = 25


def report() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        started = asyncio.run(_pairs(_Start(Path(name))))
        command = asyncio.run(_pairs(_Command(Path(name))))
    _show("sandbox start (claude --version)", started, "  (goal: 60 or less)")
    _show("one contained git command", command)


def _show(name: str, pair: tuple[float, float], goal: str = "") -> None:
    contained, free = pair
    print(f"{name:<33}{contained - free:6.0f} ms more than {free:.0f} ms{goal}")


async def _pairs(work: Callable[[Containment], Awaitable[None]]) -> tuple[float, float]:
    """Return the medians with and without the sandbox, of alternating runs."""
    ways = (real_sandbox().containment, Uncontained())
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for way, each in zip(ways, times, strict=True):
            began = time.perf_counter()
            await work(way)
            each.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


class _Start:
    """The CLI with supervisor and proxy, as a job starts it."""

    def __init__(self, directory: Path) -> None:
        self._executable = find_executable(None, os.environ["PATH"])
        self._home = directory / "home"
        self._home.mkdir()
        self._reach = Reach((self._home,), (self._executable, self._executable.resolve()))
        self._limits = Limits(4096, 8 << 30, 8 << 30, 1 << 30)
        policy = Policy(Network.INTERNET)
        self._gateway = Gateway(policy, ConnectionVariables({}), None)

    async def __call__(self, containment: Containment) -> None:
        passage = Passage(self._gateway, "bench", is_inside=containment.has_own_network)
        command = [str(self._executable), "--version"]
        child = SupervisedChild.start(
            lambda _: containment.supervised(command, self._reach, passage.ports, self._limits),
            "",
            {"PATH": os.environ["PATH"], "HOME": str(self._home)},
            self._home,
        )
        serving = asyncio.create_task(passage.serve(child.control))
        printed = await asyncio.to_thread(child.pipes[1].read)
        assert await child.ended() == 0, child.pipes[2].read()
        assert printed
        await serving
        for pipe in child.pipes:
            pipe.close()


class _Command:
    """A git command on files that a job could have written."""

    def __init__(self, directory: Path) -> None:
        self._repository = directory / "repository"
        subprocess.run(["git", "init", "--quiet", self._repository], check=True)
        self._place = GitLocation(self._repository / ".git", reach=Reach((self._repository,)))

    async def __call__(self, containment: Containment) -> None:
        git = Git(os.environ["PATH"], containment=containment)
        await git.run("rev-parse", "--git-dir", at=self._place)
