"""Changes to an older commit that Claude went back to, brought to the branch it works on."""

from __future__ import annotations

from workspace.git.runner import Git
from workspace.git.trees import apply_tree_diff, changed_names, tree_of
from workspace.inspection.head import has_own_branch_checked_out, head_and_branch, is_within
from workspace.worktree.worktree import Worktree


async def newer_branch_head(git: Git, worktree: Worktree) -> str | None:
    """Return the commit of the job's branch, if what is checked out is an older one of it."""
    if has_own_branch_checked_out(worktree):
        return None
    head, branch = await head_and_branch(git, worktree)
    if branch is None or branch == head or not await is_within(git, worktree, head, branch):
        return None
    return branch


async def rebase_changes_onto(git: Git, worktree: Worktree, tree: str, newer: str) -> str | None:
    """Return the files of `newer` with the changes that `tree` makes to what is checked out.

    Args:
        git: runs the commands.
        worktree: stays as it is.
        tree: the files that were made on the older commit.
        newer: from `newer_branch_head`.

    Returns:
        A tree; None when both changed a file, each in its own way.
    """
    head, _ = await head_and_branch(git, worktree)
    place = worktree.history
    older, onto = await tree_of(git, place, head), await tree_of(git, place, newer)
    by_both = await changed_names(git, place, older, onto)
    by_both &= await changed_names(git, place, older, tree)
    if by_both & await changed_names(git, place, onto, tree):
        return None
    return await apply_tree_diff(git, place, onto, older, tree)
