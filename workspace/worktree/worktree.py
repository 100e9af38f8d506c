"""The paths and the record of a job's worktree."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import InvalidRequest
from sandbox import files
from sandbox.containment import Reach
from workspace.git.runner import GitLocation

RECORD_SUFFIX = ".json"
REPOSITORY_SUFFIX = ".git"
LOCK_SUFFIX = ".lock"
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True)
class SubmoduleSnapshot:
    """A submodule right after its worktree was created.

    Args:
        path: from the top of the worktree.
        head: the commit that was checked out, if any.
        tree: its files on disk, as a git tree.
    """

    path: str
    head: str | None
    tree: str


@dataclass(frozen=True)
class Worktree:
    """The files and the private repository of one job.

    Args:
        owner: of the repository.
        name: of the repository.
        job_id: the job.
        path: the directory with the files.
        mirror: the bare repository whose objects it borrows.
        branch: its branch; None if it is for reading only.
        base_sha: the commit that it was created from.
        continued: whether the branch already existed on the remote.
        notices: sentences for the user, such as about a missing submodule.
        files_tree: the untouched files as a git tree, if it differs from the tree of the commit
            that was checked out, as it does with some `.gitattributes`. Only differences from it
            are work.
        submodules: the submodules that were checked out, at any depth.
        temporary_git_dir: a repository to use in place of the job's own.
    """

    owner: str
    name: str
    job_id: str
    path: Path
    mirror: Path
    branch: str | None
    base_sha: str
    continued: bool = False
    notices: tuple[str, ...] = ()
    files_tree: str | None = None
    submodules: tuple[SubmoduleSnapshot, ...] = ()
    temporary_git_dir: Path | None = None

    @property
    def git_dir(self) -> Path:
        """The repository to use: the temporary one, or the job's own, which is beside the files."""
        return self.temporary_git_dir or self._own_git_dir

    @property
    def _own_git_dir(self) -> Path:
        return _beside(self.path, REPOSITORY_SUFFIX)

    @property
    def exists(self) -> bool:
        """Whether the files and the repository are on disk."""
        return self.path.is_dir() and self.git_dir.is_dir()

    @property
    def place(self) -> GitLocation:
        """The repository with the files. The `.git` file is not used, because it is not trusted."""
        return GitLocation(self.git_dir, work_tree=self.path, reach=self.reach)

    @property
    def history(self) -> GitLocation:
        """The repository without the files, for commands that only read commits."""
        return GitLocation(self.git_dir, reach=self.reach)

    @property
    def reach(self) -> Reach:
        """Paths for contained commands: its own, and read-only the objects that it borrows."""
        own = [self.path, self._own_git_dir]
        if self.temporary_git_dir is not None:
            own.append(self.temporary_git_dir)
        return Reach(tuple(own), (self.mirror / "objects", self.mirror / "lfs"))

    @property
    def lock_file(self) -> Path:
        """The file of the worktree's lock. Take it before the mirror's lock, never after."""
        return _beside(self.path, LOCK_SUFFIX)

    @property
    def expected_remote(self) -> str | None:
        """The commit of the remote's branch when the worktree was created; None if it was new."""
        return self.base_sha if self.continued else None


def checked_job_id(job_id: str) -> str:
    """Return `job_id` if it is safe as the name of a file and a ref.

    Raises:
        InvalidRequest: it is not.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidRequest(f"{job_id[:100]!r} is not a job id.")
    return job_id


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of the worktree at `path`; None if there is no readable one."""
    try:
        record = json.loads(_beside(path, RECORD_SUFFIX).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(worktree: Worktree) -> None:
    """Mark the worktree as complete. The record survives a power cut."""
    record = {
        "branch": worktree.branch,
        "base_sha": worktree.base_sha,
        "continued": worktree.continued,
        "notices": list(worktree.notices),
        "files_tree": worktree.files_tree,
        "submodules": [[each.path, each.head, each.tree] for each in worktree.submodules],
    }
    file = _beside(worktree.path, RECORD_SUFFIX)
    content = json.dumps(record).encode()
    files.write(file.parent, file.name, content, mode=0o644, durable=True)


def delete_record(path: Path) -> None:
    """Mark the worktree at `path` as incomplete. Idempotent."""
    _beside(path, RECORD_SUFFIX).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
