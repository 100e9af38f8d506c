"""The commit that holds the work of a job."""

from __future__ import annotations

from workspace.git.runner import Git
from workspace.worktree.private_repository import branch_in
from workspace.worktree.worktree import Worktree


async def head_commit(git: Git, worktree: Worktree) -> str:
    """Return the commit to publish: HEAD, or the job's branch if it contains HEAD.

    Claude may have checked out an older commit of its branch to look at it.
    """
    if has_own_branch_checked_out(worktree):
        return await commit_of(git, worktree, "HEAD") or worktree.base_sha
    head, branch = await head_and_branch(git, worktree)
    if branch is None:
        return head
    return branch if await is_within(git, worktree, head, branch) else head


def has_own_branch_checked_out(worktree: Worktree) -> bool:
    """Return whether HEAD is the branch that the worktree was created with."""
    return worktree.branch is not None and branch_in(worktree.git_dir) == worktree.branch


async def head_and_branch(git: Git, worktree: Worktree) -> tuple[str, str | None]:
    """Return the commits of HEAD and of the job's branch; None if that branch does not exist."""
    head = await commit_of(git, worktree, "HEAD") or worktree.base_sha
    if worktree.branch is None:
        return head, None
    return head, await commit_of(git, worktree, f"refs/heads/{worktree.branch}")


async def commit_of(git: Git, worktree: Worktree, revision: str) -> str | None:
    """Return the commit of a revision; None if it does not exist or names no commit."""
    output = await git.run(
        "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}",
        at=worktree.history, accept=(0, 1, 128),
    )  # fmt: skip
    return output.strip() or None


async def is_within(git: Git, worktree: Worktree, older: str, newer: str) -> bool:
    """Return whether `newer` contains `older`."""
    return await git.says("merge-base", "--is-ancestor", older, newer, at=worktree.history)
