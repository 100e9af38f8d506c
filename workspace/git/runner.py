"""Run git with an explicit environment and with settings that no repository can override."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.errors import DependencyUnavailable
from sandbox import subprocesses
from sandbox.containment import Containment, Reach, Uncontained
from sandbox.gateway import Gateway, Passage
from sandbox.subprocesses import ProcessResult
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Control
from workspace.git.locks import held_descriptors
from workspace.git.text import decode

LOCAL_SECONDS = 120.0
"""For commands that use only refs, objects and configuration."""
TREE_SECONDS = 1800.0
"""For commands that read or write all files of a worktree."""
NETWORK_SECONDS = 3600.0
"""For commands that talk to the remote. A stalled connection fails much earlier."""
MAX_OUTPUT = 64 * 1024 * 1024

Setting = tuple[str, str]

# Settings in the environment override those in any file (git-config(1), GIT_CONFIG_COUNT).
_SETTINGS: tuple[Setting, ...] = (
    ("safe.directory", "*"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("commit.gpgSign", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.version", "2"),
)
_VARIABLES: Mapping[str, str] = {
    "LANG": "C",
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_EDITOR": ":",
    "GIT_PAGER": "cat",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null",
    "GIT_LFS_SKIP_SMUDGE": "1",
}


class GitError(Exception):
    """A git command failed.

    Args:
        arguments: the command and its arguments.
        exit_code: negative when a signal ended the command; None when its time limit ran out.
        stderr: the end of standard error, at most 4 KB.
    """

    def __init__(self, arguments: Sequence[str], exit_code: int | None, stderr: str) -> None:
        ending = "ran into its time limit" if exit_code is None else f"ended with {exit_code}"
        super().__init__(f"git {' '.join(arguments[:1])} {ending}: {stderr.strip()}")
        self.arguments = tuple(arguments)
        self.exit_code = exit_code
        self.stderr = stderr


class OutputTooLong(GitError):
    """The output of a git command exceeded its limit, so the command was stopped."""


@dataclass(frozen=True)
class GitLocation:
    """The repository of a command. Git never has to discover it.

    Args:
        git_dir: the repository.
        work_tree: the files of a worktree.
        objects: an object store instead of the repository's own.
        index: an index instead of the worktree's own.
        reach: set if a job could have written any of these files. Commands then run in the
            sandbox, where they can open only this.
    """

    git_dir: Path
    work_tree: Path | None = None
    objects: Path | None = None
    index: Path | None = None
    reach: Reach | None = None

    def variables(self) -> dict[str, str]:
        """Return the environment variables for these paths (git(1))."""
        places = {
            "GIT_DIR": self.git_dir,
            "GIT_WORK_TREE": self.work_tree,
            "GIT_OBJECT_DIRECTORY": self.objects,
            "GIT_INDEX_FILE": self.index,
        }
        return {name: str(path) for name, path in places.items() if path is not None}


class Git:
    """Runs git without the environment of this process.

    Args:
        search_path: the PATH for `git`, `sh` and `git-lfs`.
        variables: more variables for every command, for example proxies and CA files.
        containment: the sandbox of commands on files that a job could have written.
        inside_path: the PATH in the sandbox; `search_path` by default.

    Raises:
        DependencyUnavailable: git is not installed.
    """

    def __init__(
        self,
        search_path: str,
        variables: Mapping[str, str] | None = None,
        containment: Containment | None = None,
        inside_path: str | None = None,
    ) -> None:
        program = shutil.which("git", path=search_path)
        if program is None:
            raise DependencyUnavailable("git is not on PATH. Install git 2.36 or newer.", "git")
        self._program = program
        self.search_path = search_path
        self._containment = containment or Uncontained()
        self._inside_path = inside_path or search_path
        self._program_inside = shutil.which("git", path=self._inside_path) or program
        self._variables = {**(variables or {}), **_VARIABLES, "PATH": search_path}

    async def run(
        self,
        *arguments: str,
        at: GitLocation,
        settings: Sequence[Setting] = (),
        variables: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        output: int | None = None,
        timeout: float = LOCAL_SECONDS,
        max_output: int = MAX_OUTPUT,
        accept: Collection[int] = (0,),
    ) -> str:
        """Run `git <arguments>` and return its output.

        Bytes that are not UTF-8 become surrogates (`surrogateescape`).

        Args:
            arguments: the command and its arguments.
            at: the repository. The command runs in its worktree, if it has one.
            settings: configuration in addition to the fixed one.
            variables: environment variables in addition to the fixed ones.
            stdin: the input of the command.
            output: a file descriptor to write the output to instead of returning it.
            timeout: the time limit in seconds.
            max_output: the limit of the output in bytes.
            accept: exit codes that are not errors.

        Raises:
            OutputTooLong: the output exceeded `max_output`.
            GitError: the exit code was another one, or the time limit ran out.
        """
        ended = await self._execute(
            arguments, at, settings, variables or {}, stdin, output, timeout, max_output
        )
        if ended.exit_code not in accept:
            raise GitError(arguments, ended.exit_code, ended.stderr)
        return decode(ended.stdout)

    async def run_on_network(
        self,
        *arguments: str,
        at: GitLocation,
        gateway: Gateway,
        settings: Sequence[Setting] = (),
        timeout: float = NETWORK_SECONDS,
    ) -> str:
        """Run a command that follows addresses which a job or a repository could have written.

        The command reaches the network only through the proxy of `gateway`. Otherwise it runs like
        commands of `run`.

        Raises:
            GitError: the exit code was not 0, or the time limit ran out.
        """
        reach = at.reach or Reach(())
        passage = Passage(gateway, "git", is_inside=self._containment.has_own_network)
        command = [self._program_inside, *arguments]
        supervised = self._containment.supervised(command, reach, passage.ports, Limits())
        ours, theirs = socket.socketpair()
        with theirs:
            control = Control(ours)
            serving = asyncio.create_task(passage.serve(control))
            try:
                ended = await self._ended(
                    supervised.command_line(theirs.fileno()),
                    arguments,
                    at,
                    environment={
                        **self._environment(at, settings),
                        **passage.variables(),
                        # Loopback addresses go through the proxy too, which explains a refusal.
                        **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
                    },
                    timeout=timeout,
                    inherited=(*held_descriptors(), theirs.fileno()),
                )
            finally:
                control.close()
                passage.close()
                await serving
        if ended.exit_code != 0:
            raise GitError(arguments, ended.exit_code, ended.stderr)
        return decode(ended.stdout)

    async def check(self, *arguments: str, at: GitLocation, timeout: float = LOCAL_SECONDS) -> bool:
        """Return whether a command exited with 0 and not with 1.

        Raises:
            GitError: the exit code was another one, or the time limit ran out.
        """
        ended = await self._execute(arguments, at, (), {}, None, None, timeout, MAX_OUTPUT)
        if ended.exit_code not in (0, 1):
            raise GitError(arguments, ended.exit_code, ended.stderr)
        return ended.exit_code == 0

    async def _execute(
        self,
        arguments: Sequence[str],
        at: GitLocation,
        settings: Sequence[Setting],
        variables: Mapping[str, str],
        stdin: bytes | None,
        output: int | None,
        timeout: float,
        max_output: int,
    ) -> ProcessResult:
        command = [self._program, *arguments]
        if at.reach is not None:
            inside = [self._program_inside, *arguments]
            command = self._containment.around(inside, at.reach)
        ended = await self._ended(
            command,
            arguments,
            at,
            environment={**self._environment(at, settings), **variables},
            stdin=stdin,
            output=output,
            timeout=timeout,
            max_output=max_output,
            inherited=held_descriptors(),
        )
        if ended.over_limit:
            raise OutputTooLong(arguments, ended.exit_code, f"printed over {max_output} bytes")
        return ended

    async def _ended(
        self,
        command: Sequence[str],
        arguments: Sequence[str],
        at: GitLocation,
        *,
        environment: Mapping[str, str],
        stdin: bytes | None = None,
        output: int | None = None,
        timeout: float,
        max_output: int = MAX_OUTPUT,
        inherited: Collection[int],
    ) -> ProcessResult:
        try:
            return await subprocesses.run(
                command,
                environment=environment,
                directory=at.work_tree or at.git_dir,
                stdin=stdin,
                stdout=output,
                timeout=timeout,
                max_output=max_output,
                inherited=inherited,
            )
        except TimeoutError as error:
            raise GitError(arguments, None, f"timed out after {timeout:.0f} s") from error

    def _environment(self, at: GitLocation, settings: Sequence[Setting]) -> dict[str, str]:
        everything = (*_SETTINGS, *settings)
        environment = {**self._variables, **at.variables()}
        if at.reach is not None:
            environment["PATH"] = self._inside_path
        environment["GIT_CONFIG_COUNT"] = str(len(everything))
        for number, (key, value) in enumerate(everything):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        return environment
