"""The places in an index where the commit of another repository belongs, which submodules are."""

from __future__ import annotations

import os
from pathlib import Path

from workspace.command import TREE_SECONDS, Git, Place

_MODE = "160000"
_MAX_LISTING = 256 * 1024 * 1024


async def gitlinks(git: Git, place: Place) -> dict[str, str]:
    """Return the commit of every link in an index, by path; those in conflict are left out."""
    listing = await git.run(
        "ls-files", "-z", "--stage", at=place, timeout=TREE_SECONDS, max_output=_MAX_LISTING
    )
    found = {}
    for entry in listing.split("\0"):
        if entry.startswith(_MODE):
            about, _, path = entry.partition("\t")
            _, sha, stage = about.split(" ")
            if stage == "0":
                found[path] = sha
    return found


def files_at(work_tree: Path, path: str) -> Path | None:
    """Return the directory at a path of a worktree; None when a link leads there, or nothing."""
    directory = work_tree / path
    is_there = directory.is_dir() and directory.resolve() == work_tree.resolve() / path
    return directory if is_there else None


def is_checked_out(work_tree: Path, path: str) -> bool:
    """Tell whether a repository is at a path of a worktree."""
    files = files_at(work_tree, path)
    return files is not None and os.path.lexists(files / ".git")
