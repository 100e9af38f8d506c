"""What differs in a worktree, asked of git once."""

from __future__ import annotations

from dataclasses import dataclass

from workspace.git.runner import TREE_SECONDS, Git, GitLocation

_MAX_LISTING = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Status:
    """The files that differ from what is checked out, submodules and ignored files aside.

    Args:
        unmerged: the paths that a merge has left with conflicts.
        nested: the directories of repositories that git does not track.
        is_clean: whether nothing differs.
    """

    unmerged: tuple[str, ...]
    nested: tuple[str, ...]
    is_clean: bool


async def status_of(git: Git, place: GitLocation) -> Status:
    """Return what differs in a worktree.

    git would look into submodules by their own configuration, so that they are left out.
    """
    printed = await git.run(
        "status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames",
        "--ignore-submodules=all",
        at=place, timeout=TREE_SECONDS, max_output=_MAX_LISTING,
    )  # fmt: skip
    entries = [entry for entry in printed.split("\0") if entry]
    # `u <XY> <sub> <four modes> <three names of objects> <path>`
    unmerged = (entry.split(" ", 10)[10] for entry in entries if entry.startswith("u "))
    # git lists files, except that it does not look into a repository and lists its directory.
    nested = (entry[2:-1] for entry in entries if entry.startswith("? ") and entry.endswith("/"))
    return Status(tuple(unmerged), tuple(nested), is_clean=not entries)
