"""Merges and rebases that Claude left unfinished."""

from __future__ import annotations

from collections.abc import Collection

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.git.runner import Git
from workspace.git.text import MAX_NAMED_PATHS, join_paths
from workspace.inspection.head import commit_of
from workspace.worktree.worktree import Worktree

_MAX_REF_BYTES = 4096
_MAX_FILE_BYTES = 64 * 1024 * 1024
_REBASE_DIRECTORIES = ("rebase-merge", "rebase-apply")


def refuse_unfinished(worktree: Worktree, unmerged: Collection[str]) -> None:
    """Refuse an unfinished rebase, and unresolved conflicts.

    A resolved merge, cherry-pick or revert is accepted, because the next commit concludes it.

    Args:
        worktree: the job's.
        unmerged: the paths that git reports as unmerged.

    Raises:
        JobFailure: GIT_FAILED.
    """
    if any(files.is_directory(worktree.git_dir, name) for name in _REBASE_DIRECTORIES):
        raise JobFailure(
            FailureCode.GIT_FAILED,
            "Nothing was published: the job left a rebase unfinished. Its work is kept. Retry the "
            "job.",
        )
    conflicts = [path for path in unmerged if _has_conflict_markers(worktree, path)]
    if conflicts:
        raise JobFailure(
            FailureCode.GIT_FAILED,
            "Nothing was published: the job left a merge with unresolved conflicts in "
            f"{join_paths(conflicts, MAX_NAMED_PATHS)}. Its work is kept. Retry the job.",
        )


async def autostashed_commits(git: Git, worktree: Worktree) -> list[str]:
    """Return the commits of `--autostash` that an unfinished rebase or merge has not reapplied."""
    commits = []
    if files.is_file(worktree.git_dir, "MERGE_AUTOSTASH"):
        commits.append(await commit_of(git, worktree, "MERGE_AUTOSTASH"))
    for name in _REBASE_DIRECTORIES:
        sha = files.read_text(worktree.git_dir, f"{name}/autostash", limit=_MAX_REF_BYTES)
        if sha is not None:
            commits.append(await commit_of(git, worktree, sha.strip()))
    return [sha for sha in commits if sha is not None]


def _has_conflict_markers(worktree: Worktree, path: str) -> bool:
    try:
        content = files.read(worktree.path, path, limit=_MAX_FILE_BYTES)
    except (OSError, files.UnsafeFile):
        return False
    line_starts = {line[:8] for line in content.splitlines()}
    return line_starts >= {b"<<<<<<< ", b">>>>>>> "}
