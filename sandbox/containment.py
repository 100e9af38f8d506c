"""A command with a wall around it: which files it reaches, and whether it has a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised


@dataclass(frozen=True, slots=True)
class Reach:
    """The files that a contained command reaches beside the system's programs.

    Files and directories that are missing are left out.

    Args:
        writable: directories and files to read and write.
        readable: those for reading only.
        fixed: those inside of `writable` that stay as they are.
        empty: directories that are empty inside, but for what the others put there.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    fixed: tuple[Path, ...] = ()
    empty: tuple[Path, ...] = ()

    def plus(self, other: Reach) -> Reach:
        """Return the reach of both."""
        return Reach(
            self.writable + other.writable,
            self.readable + other.readable,
            self.fixed + other.fixed,
            self.empty + other.empty,
        )


class Containment(Protocol):
    """A way to contain commands."""

    @property
    def has_own_network(self) -> bool:
        """Whether contained commands have a network of their own, and not the host's."""
        ...

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return the command line that runs `command`, an absolute path and its arguments.

        It has no network where `has_own_network` is true.
        """
        ...

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Return how the supervisor runs `command`.

        Args:
            command: an absolute path and its arguments.
            reach: the files it reaches.
            ports: on which sockets listen inside, where `has_own_network` is true.
            limits: of the command and all that it starts.
        """
        ...


class Uncontained:
    """Runs commands as they are: the operator has set SANDBOX=off."""

    has_own_network = False

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return `command` itself."""
        return list(command)

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Return `command` with the limits that are watched over."""
        return Supervised(command, None, limits, reach.writable[0])
