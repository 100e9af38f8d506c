"""Servers that end when the process that started them ends, even if it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

NOBODY = 65534
"""The user for Postgres, which refuses to run as root."""

STOP_SECONDS = 10


def drops_root() -> bool:
    return os.getuid() == 0


def as_nobody(command: Sequence[str]) -> list[str]:
    """The prefix with which root runs a command as an unprivileged user."""
    return [*_setpriv(*_nobody()), *command] if drops_root() else list(command)


class Server:
    """A running child and its log.

    Args:
        command: its arguments.
        log: the file its output goes to.
        environment: its whole environment.
        cwd: its directory.
        stop_signal: what makes it end in good order.
        refuses_root: whether it needs another user when this one is root.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        cwd: Path,
        stop_signal: signal.Signals,
        refuses_root: bool = False,
    ) -> None:
        options = [f"--pdeathsig={stop_signal.name.removeprefix('SIG')}"]
        # In one step, because a change of user clears the signal (prctl(2)).
        options += _nobody() if refuses_root and drops_root() else []
        self._log = log
        self._stop_signal = stop_signal
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_setpriv(*options), *command],
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise with the end of its log if it has ended."""
        code = self._process.poll()
        assert code is None, f"exit code {code}: {self._log.read_text()[-2000:]}"

    def stop(self) -> None:
        """Stop it, with SIGKILL if necessary."""
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)


def _nobody() -> list[str]:
    return [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def _setpriv(*options: str) -> list[str]:
    """Return the prefix of a command, empty on systems without util-linux."""
    program = shutil.which("setpriv")
    return [program, *options] if program else []
