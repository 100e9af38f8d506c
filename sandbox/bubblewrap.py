"""Bubblewrap (bwrap): a command in its own namespaces, with only the files it needs.

The options were tested with 38 attacks, as root and as an unprivileged user. Paths are the same
inside and outside, so another process can resume a session or reuse a repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.containment import Reach
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised

TEMPORARY_BYTES = 1 << 30
"""Maximum size of /tmp, /dev/shm and each empty directory. All of them use memory."""

_NAMESPACES = (
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--disable-userns",
    "--die-with-parent",
    "--new-session",
    "--cap-drop", "ALL",
    "--hostname", "sandbox",
)  # fmt: skip

_SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into /usr on a merged-usr system, otherwise directories."""

# Root owns these files and could write them without any capability.
_PROC_COVERS = tuple(Path("/proc", name) for name in ("sys", "sysrq-trigger", "irq", "bus", "fs"))


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Contain commands with bwrap.

    Args:
        program: the executable of bwrap, 0.8 or newer.
        etc: the directory mounted as /etc; see `sandbox.etc`.
        visible: more readable directories and files, such as PATH entries outside /usr.
        has_own_network: whether commands get an empty network namespace instead of the host's.
    """

    program: Path
    etc: Path
    visible: tuple[Path, ...] = ()
    has_own_network: bool = True

    def around(self, command: Sequence[str], reach: Reach) -> list[str]:
        """Return the command line that runs `command` without a network."""
        return [*self._arguments(reach), "--unshare-net", "--", *command]

    def supervised(
        self, command: Sequence[str], reach: Reach, ports: Sequence[int], limits: Limits
    ) -> Supervised:
        """Return `command` for the supervisor, with sockets that listen on `ports` inside."""
        network, inside = ([], []) if not self.has_own_network else (["--unshare-net"], [*ports])
        line = [*self._arguments(reach), *network, "--", *command]
        return Supervised(line, inside, limits, reach.writable[0])

    def _arguments(self, reach: Reach) -> list[str]:
        return [
            str(self.program),
            *_NAMESPACES,
            *_system(),
            *("--ro-bind", str(self.etc), "/etc"),
            *("--proc", "/proc"),
            *(_binds("--ro-bind-try", _PROC_COVERS) if os.geteuid() == 0 else ()),
            *("--dev", "/dev", *_tmpfs("/dev/shm", "1777"), "--remount-ro", "/dev"),
            *_tmpfs("/tmp", "1777"),
            *(part for path in reach.empty for part in _tmpfs(str(path), "0700")),
            *_readable((*self.visible, *reach.readable)),
            *_binds("--bind-try", reach.writable),
            *_binds("--ro-bind-try", reach.fixed),
            *("--remount-ro", "/"),
        ]


def _system() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr", "--ro-bind-try", "/opt", "/opt")
    for link in _SYSTEM_LINKS:
        if os.path.islink(link):
            yield from ("--symlink", os.readlink(link), link)
        else:
            yield from ("--ro-bind-try", link, link)


def _tmpfs(path: str, mode: str) -> tuple[str, ...]:
    # Without a size, a tmpfs may use half of the host's memory.
    return ("--perms", mode, "--size", str(TEMPORARY_BYTES), "--tmpfs", path)


def _readable(paths: Sequence[Path]) -> Iterator[str]:
    """Bind files and directories read-only, and create the links that lead to them.

    bwrap cannot bind to a path that contains a link, such as ~/.local/bin/claude.
    """
    seen = {Path("/usr"), Path("/opt"), *map(Path, _SYSTEM_LINKS)}
    # Parents come before their children, so that nothing is created twice.
    for path in sorted(dict.fromkeys(paths), key=lambda path: len(path.parts)):
        target = Path(os.path.realpath(path))
        yield from ("--ro-bind-try", str(target), str(target))
        seen.add(target)
        if target != path and seen.isdisjoint((path, *path.parents)):
            yield from ("--symlink", str(target), str(path))
        seen.add(path)


def _binds(option: str, paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        yield from (option, str(path), str(path))
