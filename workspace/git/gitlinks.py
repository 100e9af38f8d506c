"""Gitlinks: entries of an index or a tree that point to commits of submodules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from workspace.git.runner import TREE_SECONDS, Git, GitLocation

_MODE = "160000"
_MAX_LISTING = 256 * 1024 * 1024


async def gitlinks(git: Git, place: GitLocation) -> dict[str, str]:
    """Return the commit of every gitlink in an index, by path, except those in conflict."""
    listing = await git.run(
        "ls-files", "-z", "--stage", at=place, timeout=TREE_SECONDS, max_output=_MAX_LISTING
    )
    # `<mode> <sha> <stage>TAB<path>`
    return {path: about[1] for about, path in _links(listing) if about[2] == "0"}


async def gitlinks_of(git: Git, place: GitLocation, tree: str) -> dict[str, str]:
    """Return the commit of every gitlink in a tree, by path."""
    listing = await git.run(
        "ls-tree", "-r", "-z", tree, at=place, timeout=TREE_SECONDS, max_output=_MAX_LISTING
    )
    # `<mode> commit <sha>TAB<path>`
    return {path: about[2] for about, path in _links(listing)}


def _links(listing: str) -> Iterator[tuple[list[str], str]]:
    for entry in listing.split("\0"):
        if entry.startswith(_MODE):
            about, _, path = entry.partition("\t")
            yield about.split(" "), path


def files_at(work_tree: Path, path: str) -> Path | None:
    """Return the directory at a path of a worktree; None if it is missing or behind a symlink."""
    directory = work_tree / path
    is_there = directory.is_dir() and directory.resolve() == work_tree.resolve() / path
    return directory if is_there else None


def is_checked_out(work_tree: Path, path: str) -> bool:
    """Return whether a repository is at a path of a worktree."""
    files = files_at(work_tree, path)
    return files is not None and os.path.lexists(files / ".git")
