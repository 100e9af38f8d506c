"""The interface of a sandbox: the files a command can access, and whether it has a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised


@dataclass(frozen=True, slots=True)
class Reach:
    """The files that a contained command can access, in addition to the system's programs.

    Missing files and directories are skipped.

    Args:
        writable: readable and writable directories and files.
        readable: read-only directories and files.
        fixed: paths inside `writable` that are read-only.
        empty: directories that are empty inside, except for the paths above.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    fixed: tuple[Path, ...] = ()
    empty: tuple[Path, ...] = ()

    def plus(self, other: Reach) -> Reach:
        """Return the union of both."""
        return Reach(
            self.writable + other.writable,
            self.readable + other.readable,
            self.fixed + other.fixed,
            self.empty + other.empty,
        )


class Containment(Protocol):
    """A method of containing commands."""

    @property
    def has_own_network(self) -> bool:
        """Whether contained commands have their own network instead of the host's."""
        ...

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return the command line that runs `command`, an absolute path and its arguments.

        The command has no network if `has_own_network` is true.
        """
        ...

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Return `command` in the form that the supervisor runs.

        Args:
            command: an absolute path and its arguments.
            reach: the files it can access.
            ports: where sockets listen inside; used only if `has_own_network` is true.
            limits: apply to the command and all its descendants.
        """
        ...


class Uncontained:
    """Run commands without a sandbox (SANDBOX=off)."""

    has_own_network = False

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return `command` unchanged."""
        return list(command)

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Return `command` with the limits that the supervisor monitors."""
        return Supervised(command, None, limits, reach.writable[0])
