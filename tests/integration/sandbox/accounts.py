"""The users that run a sandbox in the tests, and their shared directories."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "/usr/bin/python3"
"""A Python that every user may run; the Python of the tests may be in a home directory."""

SYSTEM = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc"]
"""Directories of programs, their libraries and their configuration."""

_UNPRIVILEGED = 61_234


@dataclass(frozen=True)
class Account:
    """A user by uid, without an entry in /etc/passwd."""

    uid: int
    gid: int

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments of Popen to run a process as this user."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give this user a directory and everything below it."""
        for found in (path, *path.rglob("*")):
            os.chown(found, self.uid, self.gid, follow_symlinks=False)


def accounts() -> list[Account]:
    """The user of the tests, and an unprivileged user if that is root."""
    own = Account(os.geteuid(), os.getegid())
    return [own, Account(_UNPRIVILEGED, _UNPRIVILEGED)] if own.is_root else [own]


def name_of(account: Account) -> str:
    return "root" if account.is_root else "unprivileged"


@contextmanager
def readable_directory() -> Iterator[Path]:
    """A directory that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path
