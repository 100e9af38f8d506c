"""A worktree, and the record beside it that says it is complete."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import InvalidRequest
from sandbox.containment import Reach
from workspace.git.runner import GitLocation

RECORD_SUFFIX = ".json"
REPOSITORY_SUFFIX = ".git"
LOCK_SUFFIX = ".lock"
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True)
class SubmoduleSnapshot:
    """A submodule as it was when its worktree was made.

    Args:
        path: from the top of the worktree.
        head: the commit that was checked out; None for none.
        tree: what its files came to as a tree.
    """

    path: str
    head: str | None
    tree: str


@dataclass(frozen=True)
class Worktree:
    """The files of one job.

    Args:
        owner: of the repository.
        name: of the repository.
        job_id: the job it belongs to.
        path: the directory with the files.
        mirror: the bare repository it belongs to.
        branch: its branch; None when it was made for reading only.
        base_sha: the commit it was made from.
        continued: whether the branch existed on the remote already.
        notices: what the job's owner should know, in sentences, such as a submodule that is absent.
        files_tree: what its untouched files come to as a tree, where that is not the tree of the
            commit that is checked out. What differs from it is work.
        submodules: those that were checked out, at any depth.
        lent: a repository that is used in the place of the job's own.
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
    lent: Path | None = None

    @property
    def git_dir(self) -> Path:
        """The repository that git works with: the job's own, beside the files, or the lent one."""
        return self.lent or self._own

    @property
    def _own(self) -> Path:
        return _beside(self.path, REPOSITORY_SUFFIX)

    @property
    def exists(self) -> bool:
        """Whether its files and its repository are on disk."""
        return self.path.is_dir() and self.git_dir.is_dir()

    @property
    def place(self) -> GitLocation:
        """Where git works on it. The `.git` file in it is not trusted, so it is not used."""
        return GitLocation(self.git_dir, work_tree=self.path, reach=self.reach)

    @property
    def history(self) -> GitLocation:
        """Where git reads its commits, for which the files need not be there."""
        return GitLocation(self.git_dir, reach=self.reach)

    @property
    def reach(self) -> Reach:
        """What commands on it reach: its own files, and the objects that its repository borrows."""
        lent = () if self.lent is None else (self.lent,)
        borrowed = (self.mirror / "objects", self.mirror / "lfs")
        return Reach((self.path, self._own, *lent), borrowed)

    @property
    def lock_file(self) -> Path:
        """The file that names the worktree's lock; taken before the mirror's, never after."""
        return _beside(self.path, LOCK_SUFFIX)

    @property
    def expected_remote(self) -> str | None:
        """Where the branch of the remote was when the worktree was made; None for nowhere."""
        return self.base_sha if self.continued else None


def checked_job_id(job_id: str) -> str:
    """Return `job_id` if it can name a file and a ref.

    Raises:
        InvalidRequest: otherwise.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidRequest(f"{job_id[:100]!r} is not a job id.")
    return job_id


def read_record(path: Path) -> dict[str, Any] | None:
    """Return what `write_record` stored for the worktree at `path`; None when it did not."""
    try:
        record = json.loads(_beside(path, RECORD_SUFFIX).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(worktree: Worktree) -> None:
    """Mark the worktree as complete, in a way that survives a power cut."""
    record = {
        "branch": worktree.branch,
        "base_sha": worktree.base_sha,
        "continued": worktree.continued,
        "notices": list(worktree.notices),
        "files_tree": worktree.files_tree,
        "submodules": [[one.path, one.head, one.tree] for one in worktree.submodules],
    }
    file = _beside(worktree.path, RECORD_SUFFIX)
    draft = file.with_suffix(".json-draft")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(record, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def delete_record(path: Path) -> None:
    """Forget the worktree at `path`."""
    _beside(path, RECORD_SUFFIX).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
