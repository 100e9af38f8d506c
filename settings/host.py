"""Settings of this host: its name and its directories."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from settings.fields import Group, absolute_path, parsed, setting


def _absolute_entries(text: str) -> str:
    """Return PATH without relative directories: a job could choose the programs in those."""
    return ":".join(os.path.abspath(entry) for entry in text.split(":") if entry.startswith("/"))


def _directory(text: str, info: ValidationInfo) -> Path:
    """Return the path with links resolved, because a process in it sees that path."""
    home = str(info.data.get("home", "/"))
    return absolute_path(re.sub(r"^~(?=/|$)", lambda _: home, text.strip())).resolve()


def _host_id(text: str | None) -> str:
    name = text.strip() if text else re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63]
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", name):
        raise ValueError(
            f"is {name!r}. Use at most 63 letters, digits, dots, dashes and underscores."
        )
    return name


def _hidden(name: str, default: str) -> Any:
    """Declare a variable of the system, which the documentation leaves out."""
    return Field(default, validation_alias=name)


Directory = Annotated[Path, BeforeValidator(_directory)]


class HostSettings(Group):
    """The host's name, its own directories and the operator's. Paths are absolute."""

    title = "The host"

    home: Annotated[Path, parsed(absolute_path)] = _hidden("HOME", "/")
    search_path: Annotated[str, parsed(_absolute_entries)] = _hidden(
        "PATH", "/usr/local/bin:/usr/bin:/bin"
    )
    id: Annotated[str, BeforeValidator(_host_id)] = setting(
        "HOST_ID", None, "Name of this host; must be unique and stay the same", shown="host name"
    )
    data_dir: Directory = setting(
        "DATA_DIR", "~/.claude-code-orchestrator", "Database, API secret and Claude's sessions"
    )
    repos_dir: Directory = setting("REPOS_DIR", "~/repos", "Mirrors of the repositories")
    worktrees_dir: Directory = setting("WORKTREES_DIR", "~/worktrees", "Worktrees of the jobs")

    @property
    def own_directories(self) -> dict[str, Path]:
        """The orchestrator's directories by their variables."""
        return {
            "DATA_DIR": self.data_dir,
            "REPOS_DIR": self.repos_dir,
            "WORKTREES_DIR": self.worktrees_dir,
        }

    @property
    def sqlite_path(self) -> Path:
        """File of the SQLite store."""
        return self.data_dir / "orchestrator.db"

    @property
    def sessions_dir(self) -> Path:
        """Directory of the homes that Claude has, one for each job."""
        return self.data_dir / "sessions"

    @property
    def sandbox_dir(self) -> Path:
        """Directory of the files that all sandboxes of this host share."""
        return self.data_dir / "sandbox"

    @property
    def data_id(self) -> str:
        """Marks the processes of this installation, as another may run on the same host."""
        return hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:12]

    def is_private(self, path: Path) -> bool:
        """Return whether a path is or contains a directory that no job may see."""
        resolved = os.path.realpath(path)
        private = (self.home, *self.own_directories.values())
        return any(Path(os.path.realpath(entry)).is_relative_to(resolved) for entry in private)

    @model_validator(mode="after")
    def _check_search_path(self) -> HostSettings:
        problems = [
            f"PATH has {entry}, which is in {name}: jobs could put programs there. Remove it."
            for name, path in self.own_directories.items()
            for entry in self.search_path.split(":")
            if Path(entry).resolve().is_relative_to(path)
        ]
        if problems:
            raise ValueError(" ".join(problems))
        return self
