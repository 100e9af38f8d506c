"""Work in submodules, which no commit of a worktree can keep: moved aside as it is."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from workspace.git.gitlinks import files_at
from workspace.inspection.submodule_repository import modules_of
from workspace.worktree.worktree import Worktree


@dataclass(frozen=True)
class RescuedSubmodules:
    """Submodules with work, and where it is once their worktree is gone.

    Args:
        paths: the submodules.
        files: the directory with their files, below the same paths.
        git_dirs: the directory with the git directories of all submodules of the worktree.
    """

    paths: tuple[str, ...]
    files: Path
    git_dirs: Path


def rescue(worktree: Worktree, spared: RescuedSubmodules) -> None:
    """Move submodules aside, each by renaming it. Repeatable.

    A submodule without its git directory counts as one with work, so the git directories go first:
    after a kill, the next removal moves the files.
    """
    _move(modules_of(worktree), spared.git_dirs)
    for path in sorted(spared.paths):
        files = files_at(worktree.path, path)
        if files is not None:
            _move(files, spared.files / path)


def spared_names(paths: Collection[str]) -> str:
    """Return the paths as text."""
    names = ", ".join(sorted(paths))
    return names.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _move(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its own time becomes the present, so that its age is how long it has been there.
    os.utime(source)
    if target.exists():
        target = target.with_name(f"{target.name}-{uuid.uuid4().hex}")
    source.rename(target)
