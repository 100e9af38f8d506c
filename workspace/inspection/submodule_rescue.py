"""Work in submodules. No commit of a worktree can hold it, so the files are moved aside."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from workspace.git.gitlinks import files_at
from workspace.inspection.submodule_repository import modules_of
from workspace.worktree.worktree import Worktree


@dataclass(frozen=True)
class RescuedSubmodules:
    """Submodules with work, and where `rescue` moves them.

    Args:
        paths: the submodules, from the top of the worktree.
        files: the directory for their files, below the same paths.
        git_dirs: the directory for the git directories of all submodules of the worktree.
    """

    paths: tuple[str, ...]
    files: Path
    git_dirs: Path


def rescue(worktree: Worktree, rescued: RescuedSubmodules) -> None:
    """Move submodules out of a worktree by renaming them. Idempotent."""
    # A submodule without a git directory counts as work. If this is killed after the first move,
    # the next removal therefore moves the files.
    _move(modules_of(worktree), rescued.git_dirs)
    for path in sorted(rescued.paths):
        files = files_at(worktree.path, path)
        if files is not None:
            _move(files, rescued.files / path)


def _move(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Expiry goes by the modification time: the age counts from now.
    os.utime(source)
    if target.exists():
        target = target.with_name(f"{target.name}-{uuid.uuid4().hex}")
    source.rename(target)
