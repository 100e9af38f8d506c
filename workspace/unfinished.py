"""What an interrupted git operation of Claude's leaves behind, and whether it can be committed."""

from __future__ import annotations

from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.command import TREE_SECONDS, Git, GitError
from workspace.work_tip import commit_of
from workspace.worktree import Worktree

_MAX_NAMED = 5
_LOCKS = ("index.lock", "HEAD.lock")
_REBASES = ("rebase-merge", "rebase-apply")


def remove_worktree_locks(worktree: Worktree) -> None:
    """Delete what a killed git left behind.

    Call it while holding the worktree's lock and after Claude has ended: then nobody is at work.
    """
    for name in _LOCKS:
        (worktree.git_dir / name).unlink(missing_ok=True)


async def refuse_unfinished(git: Git, worktree: Worktree) -> None:
    """Let a resolved merge, cherry-pick or revert pass: the next commit concludes it.

    Raises:
        JobFailure: a rebase is under way, or files have conflict markers in them.
    """
    if any((worktree.git_dir / name).is_dir() for name in _REBASES):
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
        file = worktree.git_dir / name / "autostash"
        if file.is_file():
            found.append(await commit_of(git, worktree, file.read_text("utf-8", "replace").strip()))
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
        lines = Path(worktree.path, name).read_bytes().splitlines()
    except OSError:
        return False
    starts = [line[:8] for line in lines if line.startswith((b"<<<<<<< ", b">>>>>>> "))]
    return b"<<<<<<< " in starts and b">>>>>>> " in starts
