"""The output of `git status`."""

from __future__ import annotations

from dataclasses import dataclass

from workspace.git.runner import TREE_SECONDS, Git, GitLocation

_MAX_OUTPUT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Status:
    """The files that differ from HEAD, without submodules and ignored files.

    Args:
        unmerged: the paths with merge conflicts.
        nested: the directories of untracked repositories.
        is_clean: whether no file differs.
    """

    unmerged: tuple[str, ...]
    nested: tuple[str, ...]
    is_clean: bool


async def status_of(git: Git, place: GitLocation) -> Status:
    """Run `git status` once.

    Submodules are left out, because git would obey their own configuration.
    """
    output = await git.run(
        "status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames",
        "--ignore-submodules=all",
        at=place, timeout=TREE_SECONDS, max_output=_MAX_OUTPUT_BYTES,
    )  # fmt: skip
    entries = [entry for entry in output.split("\0") if entry]
    # `u <XY> <sub> <four modes> <three object names> <path>`
    unmerged = (entry.split(" ", 10)[10] for entry in entries if entry.startswith("u "))
    # With --untracked-files=all, git lists a directory only if it is a repository.
    nested = (entry[2:-1] for entry in entries if entry.startswith("? ") and entry.endswith("/"))
    return Status(tuple(unmerged), tuple(nested), is_clean=not entries)
