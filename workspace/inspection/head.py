"""Which commit stands for the work in a worktree."""

from __future__ import annotations

from workspace.git.runner import Git
from workspace.worktree.private_repository import branch_in
from workspace.worktree.worktree import Worktree


async def head_commit(git: Git, worktree: Worktree) -> str:
    """Return the commit that is checked out, unless the job's branch has that and more.

    Claude may have gone back to look at an older commit.
    """
    if has_own_branch_checked_out(worktree):
        return await commit_of(git, worktree, "HEAD") or worktree.base_sha
    head, branch = await head_and_branch(git, worktree)
    if branch is None:
        return head
    return branch if await is_within(git, worktree, head, branch) else head


def has_own_branch_checked_out(worktree: Worktree) -> bool:
    """Return whether HEAD is the job's own branch, as it was made."""
    return worktree.branch is not None and branch_in(worktree.git_dir) == worktree.branch


async def head_and_branch(git: Git, worktree: Worktree) -> tuple[str, str | None]:
    """Return the commit that is checked out, and that of the job's branch if there is one."""
    head = await commit_of(git, worktree, "HEAD") or worktree.base_sha
    if worktree.branch is None:
        return head, None
    return head, await commit_of(git, worktree, f"refs/heads/{worktree.branch}")


async def commit_of(git: Git, worktree: Worktree, revision: str) -> str | None:
    """Return the commit that a ref of the worktree leads to; None when it leads nowhere."""
    found = await git.run(
        "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}",
        at=worktree.history, accept=(0, 1, 128),
    )  # fmt: skip
    return found.strip() or None


async def is_within(git: Git, worktree: Worktree, older: str, newer: str) -> bool:
    """Tell whether `newer` contains `older`."""
    return await git.says("merge-base", "--is-ancestor", older, newer, at=worktree.history)
