"""The output of `git status`."""

from __future__ import annotations

from dataclasses import dataclass

from workspace.git.refs import SHA
from workspace.git.runner import TREE_SECONDS, Git, GitError, GitLocation, Setting

_HEAD = "# branch.oid "
_MAX_OUTPUT_BYTES = 256 * 1024 * 1024
# A job could have written an index that hides new files from `git status`, but not from `git add`.
_NO_UNTRACKED_CACHE: tuple[Setting, ...] = (("core.untrackedCache", "false"),)


@dataclass(frozen=True, slots=True)
class Status:
    """The files that differ from HEAD, without submodules and ignored files.

    Args:
        head: the commit that is checked out; None before the first commit of a branch.
        unmerged: the paths with merge conflicts.
        nested: the directories of untracked repositories.
        is_clean: whether no file differs.
    """

    head: str | None
    unmerged: tuple[str, ...]
    nested: tuple[str, ...]
    is_clean: bool


async def status_of(
    git: Git, place: GitLocation, *, ignored: str = "all", refresh_index: bool = True
) -> Status:
    """Run `git status` once.

    Submodules are left out, because git would obey their own configuration.

    Args:
        git: runs the command.
        place: the worktree.
        ignored: the changes of submodules that do not count: `all`, or `dirty`, which still counts
            another commit.
        refresh_index: whether git may record unchanged files in the index.
    """
    output = await git.run(
        "status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--no-renames",
        f"--ignore-submodules={ignored}",
        at=place, timeout=TREE_SECONDS, max_output=_MAX_OUTPUT_BYTES, settings=_NO_UNTRACKED_CACHE,
        variables=None if refresh_index else {"GIT_OPTIONAL_LOCKS": "0"},
    )  # fmt: skip
    rows = [row for row in output.split("\0") if row]
    heads = (row.removeprefix(_HEAD) for row in rows if row.startswith(_HEAD))
    head = next((sha for sha in heads if SHA.fullmatch(sha)), None)
    entries = [row for row in rows if not row.startswith("# ")]
    # `u <XY> <sub> <four modes> <three object names> <path>`
    unmerged = (entry.split(" ", 10)[10] for entry in entries if entry.startswith("u "))
    # With --untracked-files=all, git lists a directory only if it is a repository.
    nested = (entry[2:-1] for entry in entries if entry.startswith("? ") and entry.endswith("/"))
    return Status(head, tuple(unmerged), tuple(nested), is_clean=not entries)


async def is_unchanged(git: Git, place: GitLocation, head: str) -> bool:
    """Return whether `head` is checked out, and staging all files would give its tree.

    The index stays as it is. A repository that git cannot read counts as changed.
    """
    try:
        status = await status_of(git, place, ignored="dirty", refresh_index=False)
    except GitError:
        return False
    return status.is_clean and status.head == head
