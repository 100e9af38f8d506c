"""Landlock as a sandbox: contains files, signals and tracing, but not the network."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox import landlock
from sandbox.containment import Reach
from sandbox.etc import readable_entries
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised

_SYSTEM = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


@dataclass(frozen=True, slots=True)
class Landlock:
    """Contain commands with `sandbox.landlock`.

    Args:
        visible: more readable directories and files, such as PATH entries outside /usr.
    """

    visible: tuple[Path, ...] = ()

    @property
    def has_own_network(self) -> bool:
        """False: Landlock cannot separate networks."""
        return False

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return the command line that runs `command`, on the host's network."""
        readable = [*map(Path, _SYSTEM), *readable_entries(), *self.visible, *reach.readable]
        writable = [path for path in reach.writable if path.exists()]
        return [
            *(sys.executable, "-I", "-S", landlock.__file__),
            *("--die-with-parent", signal.SIGTERM.name),
            *(part for path in writable for part in ("--rw", str(path))),
            *(part for path in readable for part in ("--ro", str(path))),
            *("--", *command),
        ]

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Return `command` for the supervisor, on the host's network."""
        return Supervised(self.around(command, reach), None, limits, reach.writable[0])
