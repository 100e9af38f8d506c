"""What an interrupted git operation of Claude's leaves behind, and whether it can be committed."""

from __future__ import annotations

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.command import TREE_SECONDS, Git, GitError
from workspace.work_tip import commit_of
from workspace.worktree import Worktree

_MAX_NAMED = 5
_MAX_SMALL = 4096
_MAX_FILE = 64 * 1024 * 1024
_REBASES = ("rebase-merge", "rebase-apply")


async def refuse_unfinished(git: Git, worktree: Worktree) -> None:
    """Let a resolved merge, cherry-pick or revert pass: the next commit concludes it.

    Raises:
        JobFailure: a rebase is under way, or files have conflict markers in them.
    """
    if any(files.is_directory(worktree.git_dir, name) for name in _REBASES):
        raise JobFailure(
            FailureCode.GIT_FAILED,
            "A rebase was left unfinished in the worktree, so nothing was published. The work is "
            "kept. Retry the job.",
        )
    conflicts = [name for name in await _unmerged(git, worktree) if _has_markers(worktree, name)]
    if conflicts:
        raise JobFailure(
            FailureCode.GIT_FAILED,
            "A merge was left with conflicts, so nothing was published. The work is kept. Retry "
            f"the job. Conflicts: {', '.join(conflicts[:_MAX_NAMED])}.",
        )


async def set_aside(git: Git, worktree: Worktree) -> list[str]:
    """Return the commits with changes that an unfinished rebase or merge is to bring back."""
    found = [await commit_of(git, worktree, "MERGE_AUTOSTASH")]
    for name in _REBASES:
        sha = files.read_text(worktree.git_dir, f"{name}/autostash", limit=_MAX_SMALL)
        if sha is not None:
            found.append(await commit_of(git, worktree, sha.strip()))
    return [sha for sha in found if sha is not None]


async def _unmerged(git: Git, worktree: Worktree) -> list[str]:
    try:
        listing = await git.run(
            "ls-files", "-z", "--unmerged", at=worktree.place, timeout=TREE_SECONDS
        )
    except GitError as error:
        raise JobFailure(
            FailureCode.GIT_FAILED, f"The worktree's index cannot be read: {error.stderr[-300:]}"
        ) from error
    return sorted({entry.partition("\t")[2] for entry in listing.split("\0") if entry})


def _has_markers(worktree: Worktree, name: str) -> bool:
    try:
        content = files.read(worktree.path, name, limit=_MAX_FILE)
    except (OSError, files.UnsafeFile):
        return False
    starts = {line[:8] for line in content.splitlines()}
    return starts >= {b"<<<<<<< ", b">>>>>>> "}
