"""Changes made on an older commit, moved to the newest commit of the job's branch."""

from __future__ import annotations

from workspace.git.refs import is_ancestor
from workspace.git.runner import Git
from workspace.git.trees import apply_tree_diff, changed_names, tree_of
from workspace.inspection.head import has_own_branch_checked_out, head_and_branch
from workspace.worktree.worktree import Worktree


async def newer_branch_head(git: Git, worktree: Worktree) -> str | None:
    """Return the commit of the job's branch if an older commit of it is checked out."""
    if has_own_branch_checked_out(worktree):
        return None
    head, branch = await head_and_branch(git, worktree)
    if branch is None or branch == head:
        return None
    return branch if await is_ancestor(git, worktree.history, head, branch) else None


async def rebase_changes_onto(git: Git, worktree: Worktree, tree: str, newer: str) -> str | None:
    """Apply the changes from HEAD to `tree` to the files of `newer`.

    Args:
        git: runs the commands.
        worktree: is not changed.
        tree: the files, as edited on the older commit.
        newer: from `newer_branch_head`.

    Returns:
        The resulting tree; None if both sides changed a file in different ways.
    """
    head, _ = await head_and_branch(git, worktree)
    place = worktree.history
    older, onto = await tree_of(git, place, head), await tree_of(git, place, newer)
    changed_by_both = await changed_names(git, place, older, onto)
    changed_by_both &= await changed_names(git, place, older, tree)
    if changed_by_both & await changed_names(git, place, onto, tree):
        return None
    return await apply_tree_diff(git, place, onto, older, tree)
