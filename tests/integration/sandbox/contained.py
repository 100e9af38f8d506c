"""Run commands in the real sandbox like Claude: with supervisor, bwrap, limits and proxy."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from unittest import mock

from agent.claude.environment import behind_proxy
from domain.configuration.isolation import Network
from sandbox.bubblewrap import Bubblewrap
from sandbox.containment import Reach
from sandbox.etc import assemble
from sandbox.gateway import Gateway, Passage
from sandbox.modes import find_bubblewrap
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.policy import Policy
from sandbox.supervision import cgroups, namespaces, supervisor
from sandbox.supervision import limits as limits_module
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Control
from tests.integration.sandbox.accounts import PYTHON, Account, readable_directory

ENDING = 20.0
"""Time limit of a command in seconds."""

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
CREDENTIAL = {"ANTHROPIC_API_KEY": "canary-claude", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
"""The environment of a worker; a contained process must not see the key."""


@functools.cache
def etc() -> Path:
    directory = Path(tempfile.gettempdir(), f"orchestrator-tests-{os.geteuid()}", "sandbox")
    return assemble(directory / "etc")


@dataclass(frozen=True)
class ContainedJob:
    """The directory of a job, and the account that runs its commands.

    Args:
        account: the user that runs the sandbox.
        base: a directory that this user may enter.
        visible: more paths that are readable in the sandbox.
    """

    account: Account
    base: Path
    visible: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for each in (self.work, self.home, self.outside):
            each.mkdir()
            self.account.own(each)
        # The Python of the tests and the checkout may be in another user's home directory.
        modules = self.base / "program" / "sandbox" / "supervision"
        modules.mkdir(parents=True)
        for module in (supervisor, namespaces, limits_module, cgroups):
            shutil.copy(str(module.__file__), modules)
        for package in (modules, modules.parent):
            (package / "__init__.py").touch()

    @property
    def work(self) -> Path:
        return self.base / "worktree"

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def outside(self) -> Path:
        """A directory that the job cannot access."""
        return self.base / "outside"

    @property
    def reach(self) -> Reach:
        return Reach((self.work, self.home))

    @property
    def bubblewrap(self) -> Bubblewrap:
        return Bubblewrap(find_bubblewrap(SEARCH_PATH), etc(), self.visible)

    @property
    def environment(self) -> dict[str, str]:
        identity = {"NAME": "A", "EMAIL": "a@example.com"}
        return {
            "PATH": SEARCH_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": "/tmp",
            **{f"GIT_AUTHOR_{name}": value for name, value in identity.items()},
            **{f"GIT_COMMITTER_{name}": value for name, value in identity.items()},
        }

    @contextlib.asynccontextmanager
    async def served(
        self,
        limits: Limits | None = None,
        policy: Policy | None = None,
        reach: Reach | None = None,
        bubblewrap: Bubblewrap | None = None,
    ) -> AsyncIterator[Launch]:
        """Serve the proxy of one command that the block starts, and stop the command at the end."""
        connection = ConnectionVariables({})
        model = ModelUpstream.from_variables(CREDENTIAL, connection)
        gateway = Gateway(policy or Policy(Network.INTERNET), connection, model)
        passage = Passage(gateway, "job", is_inside=True)
        ours, theirs = socket.socketpair()
        control = Control(ours)
        serving = asyncio.create_task(passage.serve(control))
        with mock.patch("os.geteuid", return_value=self.account.uid):
            supervised = (bubblewrap or self.bubblewrap).supervised(
                (), reach or self.reach, passage.ports, limits or Limits()
            )
        line = supervised.command_line(theirs.fileno())
        if self.account.uid != os.geteuid():
            program = self.base / "program/sandbox/supervision/supervisor.py"
            assert line[:4] == [sys.executable, "-I", "-S", supervisor.__file__]
            line[:4] = [PYTHON, "-I", "-S", str(program)]
        try:
            yield Launch(line, theirs, control, behind_proxy(CREDENTIAL, passage))
        finally:
            theirs.close()
            control.ask_to_stop(0.5)
            await control.gone.wait()
            await serving
            await gateway.aclose()

    @contextlib.asynccontextmanager
    async def running(
        self,
        *command: str | Path,
        environment: Mapping[str, str] | None = None,
        below: Sequence[str] = (),
        **options: Any,
    ) -> AsyncIterator[Running]:
        """Start a command, and end all its processes at the end.

        Args:
            command: an absolute path and its arguments.
            environment: additional variables.
            below: a program that executes the supervisor.
            options: options of `served`.
        """
        async with self.served(**options) as launch:
            with subprocess.Popen(  # noqa: ASYNC220 - it takes some milliseconds
                [*below, *launch.line, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.work,
                env={**self.environment, **launch.variables, **(environment or {})},
                pass_fds=(launch.descriptor,),
                start_new_session=True,
                **self.account.popen,
            ) as process:
                launch.started()
                yield Running(process, launch.control)
                launch.control.ask_to_stop(0.5)
                await launch.control.gone.wait()

    async def run(
        self,
        *command: str | Path,
        seconds: float = ENDING,
        **options: Any,
    ) -> Ended:
        """Run a command for at most `seconds`; the options are those of `running`."""
        async with asyncio.timeout(seconds), self.running(*command, **options) as running:
            printed = [asyncio.to_thread(each.read) for each in (running.stdout, running.stderr)]
            stdout, stderr = await asyncio.gather(*printed)
            code = await running.ended()
        return Ended(code, stdout.decode(), stderr.decode(), running.control)

    async def shell(self, script: str, **options: Any) -> str:
        """Run a script that must succeed, and return its output."""
        ended = await self.run("/bin/bash", "-euc", script, **options)
        assert ended.code == 0, ended
        return ended.stdout

    async def python(self, code: str, *arguments: object, **options: Any) -> Ended:
        """Run a Python program."""
        words = map(str, arguments)
        return await self.run(PYTHON, "-I", "-S", "-c", code, *words, **options)


@dataclass
class Launch:
    """The start of a command line; append the command to `line`.

    Attributes:
        line: the supervisor's command line without the command.
        control: the worker's end of the socket.
        variables: proxy variables for the command.
    """

    line: Sequence[str]
    _theirs: socket.socket
    control: Control
    variables: dict[str, str]

    @property
    def descriptor(self) -> int:
        """The descriptors that the supervisor inherits."""
        return self._theirs.fileno()

    def started(self) -> None:
        """Close the supervisor's end of the socket here, so that its exit is detected."""
        self._theirs.close()


@dataclass
class Running:
    """A command in the sandbox.

    Attributes:
        process: the supervisor.
        control: the worker's end of its socket.
    """

    process: subprocess.Popen[bytes]
    control: Control

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def stderr(self) -> IO[bytes]:
        assert self.process.stderr is not None
        return self.process.stderr

    async def line(self) -> str:
        """Return the next line of standard output."""
        async with asyncio.timeout(ENDING):
            return (await asyncio.to_thread(self.stdout.readline)).decode().rstrip("\n")

    async def ended(self) -> int:
        """Return the exit code of the supervisor once it has ended."""
        async with asyncio.timeout(ENDING):
            await self.control.gone.wait()
            return await asyncio.to_thread(self.process.wait)

    @property
    def bwrap(self) -> int:
        return children(self.process.pid)[0]

    @property
    def init(self) -> int:
        return children(self.bwrap)[0]

    @property
    def command(self) -> int:
        """The process id of the command in the host's namespace."""
        return children(self.init)[0]


@dataclass(frozen=True)
class Ended:
    """The result of a command."""

    code: int
    stdout: str
    stderr: str
    control: Control = field(repr=False)

    @property
    def limit(self) -> str | None:
        return self.control.limit


@contextlib.contextmanager
def contained_room(account: Account) -> Iterator[ContainedJob]:
    """Create a job, and remove it at the end."""
    with readable_directory() as base:
        yield ContainedJob(account, base)


def children(pid: int) -> list[int]:
    """Return the children of a process, oldest first."""
    found = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return sorted(found)
