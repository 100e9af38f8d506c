"""What an interrupted git operation of Claude's leaves behind, and whether it can be committed."""

from __future__ import annotations

from collections.abc import Collection

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.git.runner import Git
from workspace.inspection.head import commit_of
from workspace.worktree.worktree import Worktree

_MAX_NAMED = 5
_MAX_SMALL = 4096
_MAX_FILE = 64 * 1024 * 1024
_REBASES = ("rebase-merge", "rebase-apply")


def refuse_unfinished(worktree: Worktree, unmerged: Collection[str]) -> None:
    """Let a resolved merge, cherry-pick or revert pass: the next commit concludes it.

    Args:
        worktree: in which it may have been left.
        unmerged: the paths that git has as unmerged.

    Raises:
        JobFailure: a rebase is under way, or files have conflict markers in them.
    """
    if any(files.is_directory(worktree.git_dir, name) for name in _REBASES):
        raise JobFailure(
            FailureCode.GIT_FAILED,
            "A rebase was left unfinished in the worktree, so nothing was published. The work is "
            "kept. Retry the job.",
        )
    conflicts = [name for name in sorted(unmerged) if _has_markers(worktree, name)]
    if conflicts:
        raise JobFailure(
            FailureCode.GIT_FAILED,
            "A merge was left with conflicts, so nothing was published. The work is kept. Retry "
            f"the job. Conflicts: {', '.join(conflicts[:_MAX_NAMED])}.",
        )


async def autostashed_commits(git: Git, worktree: Worktree) -> list[str]:
    """Return the commits with changes that an unfinished rebase or merge is to bring back."""
    found = [await commit_of(git, worktree, "MERGE_AUTOSTASH")]
    for name in _REBASES:
        sha = files.read_text(worktree.git_dir, f"{name}/autostash", limit=_MAX_SMALL)
        if sha is not None:
            found.append(await commit_of(git, worktree, sha.strip()))
    return [sha for sha in found if sha is not None]


def _has_markers(worktree: Worktree, name: str) -> bool:
    try:
        content = files.read(worktree.path, name, limit=_MAX_FILE)
    except (OSError, files.UnsafeFile):
        return False
    starts = {line[:8] for line in content.splitlines()}
    return starts >= {b"<<<<<<< ", b">>>>>>> "}
