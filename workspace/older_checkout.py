"""Changes to an older commit that Claude went back to, brought to the branch it works on."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from workspace.command import TREE_SECONDS, Git
from workspace.work_tip import ends, is_within
from workspace.worktree import Worktree


async def newer_tip(git: Git, worktree: Worktree) -> str | None:
    """Return the commit of the job's branch, if what is checked out is an older one of it."""
    head, branch = await ends(git, worktree)
    if branch is None or branch == head or not await is_within(git, worktree, head, branch):
        return None
    return branch


async def brought_forward(git: Git, worktree: Worktree, tree: str, newer: str) -> str | None:
    """Return the files of `newer` with the changes that `tree` makes to what is checked out.

    Args:
        git: runs the commands.
        worktree: stays as it is.
        tree: the files that were made on the older commit.
        newer: from `newer_tip`.

    Returns:
        A tree; None when both changed a file, each in its own way.
    """
    private = Path(tempfile.mkdtemp(dir=worktree.git_dir, prefix="forward-"))
    # Without files of its own, so that only the index is worked on.
    place = replace(worktree.history, index=private / "index")
    try:
        head, _ = await ends(git, worktree)
        await git.run(
            "read-tree", "-i", "-m", "--aggressive", head, newer, tree,
            at=place, timeout=TREE_SECONDS,
        )  # fmt: skip
        if await git.run("ls-files", "--unmerged", at=place, timeout=TREE_SECONDS):
            return None
        return (await git.run("write-tree", at=place, timeout=TREE_SECONDS)).strip()
    finally:
        await asyncio.to_thread(shutil.rmtree, private, True)
