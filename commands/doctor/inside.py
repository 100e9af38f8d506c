"""Commands that are run in the sandbox as those of a job are."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.containment import Containment, Reach

_SECONDS = 20.0
_NOT_ENDED = 124


@dataclass(frozen=True, slots=True)
class Inside:
    """A sandbox like that of a job, with a directory to write to.

    Args:
        containment: the way.
        search_path: PATH.
        directory: the only one that commands can write to.
        readable: what they can read beside the system and PATH.
    """

    containment: Containment
    search_path: str
    directory: Path
    readable: tuple[Path, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of the commands."""
        return {
            "PATH": self.search_path,
            "HOME": str(self.directory),
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    @property
    def reach(self) -> Reach:
        """The files of the commands."""
        return Reach((self.directory,), self.readable)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, an absolute path and its arguments. Blocks.

        One that cannot be started or does not end has an exit code other than 0.
        """
        return _run(self.containment.around(command, self.reach), self)

    def run_outside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run the same command without a sandbox."""
        return _run([*command], self)

    def shell(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh, with its arguments as $1 and so on; as `run`."""
        return self.run("/bin/sh", "-c", script, "sh", *arguments)


def last_words(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the end of what a command said on standard error, in one line."""
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
