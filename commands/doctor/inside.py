"""Run commands in the sandbox in the same way as the commands of a job."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.containment import Containment, Reach

_SECONDS = 20.0
"""Time limit of one command. A cold start of the Claude CLI takes several seconds."""

_NOT_ENDED = 124
"""The exit code that timeout(1) uses."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A sandbox like that of a job, with one writable directory.

    Args:
        containment: the sandbox of this host.
        search_path: PATH of the commands.
        directory: the only directory that the commands can write to.
        readable: more paths that the commands can read.
    """

    containment: Containment
    search_path: str
    directory: Path
    readable: tuple[Path, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The complete environment of the commands."""
        return {
            "PATH": self.search_path,
            "HOME": str(self.directory),
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    @property
    def reach(self) -> Reach:
        """The files that the commands can access."""
        return Reach((self.directory,), self.readable)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, an absolute path and its arguments. Blocks.

        If it cannot be started or does not end in time, the exit code is not 0.
        """
        return _run(self.containment.around(command, self.reach), self)

    def run_outside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run the same command without a sandbox."""
        return _run([*command], self)

    def shell(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script with its arguments as $1, $2, ..., in the same way as `run`."""
        return self.run("/bin/sh", "-c", script, "sh", *arguments)


def last_words(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the end of a command's standard error in one line."""
    return " ".join(ended.stderr.split())[-200:] or f"exit code {ended.returncode}"


def _run(command: list[str], inside: Inside) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=inside.environment,
            cwd=inside.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, _NOT_ENDED, "", str(error))
