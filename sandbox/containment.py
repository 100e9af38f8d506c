"""A command with a wall around it: which files it reaches, and that it has no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reach:
    """The files that a contained command reaches beside the system's programs.

    Args:
        writable: directories and files; those that are missing are left out.
        readable: the same, for reading only.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()


class Containment(Protocol):
    """A way to contain commands."""

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return the command line that runs `command`, an absolute path and its arguments."""
        ...


class Uncontained:
    """Runs commands as they are: the operator has set SANDBOX=off."""

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return `command` itself."""
        return list(command)
