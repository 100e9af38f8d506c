"""Lines of work that Claude made beside the branch of its job, and left."""

from __future__ import annotations

from collections.abc import Collection

from workspace.command import Git, lines
from workspace.network import refs
from workspace.worktree import Worktree

_HEADS = "refs/heads/"


async def other_lines(git: Git, worktree: Worktree, known: Collection[str]) -> dict[str, str]:
    """Return the commits of Claude's other branches and of its stash, by name.

    Args:
        git: runs the commands.
        worktree: of the job, whose own branch is left out.
        known: commits; lines that they contain are left out too.
    """
    branches = await refs(git, worktree.history, _HEADS)
    found = {name.removeprefix(_HEADS): sha for name, sha in branches.items()}
    found.pop(worktree.branch or "", None)
    found |= await _stash(git, worktree)
    return {name: sha for name, sha in found.items() if await adds_to(git, worktree, [sha], known)}


async def _stash(git: Git, worktree: Worktree) -> dict[str, str]:
    """Return the commits that `git stash` made and nothing has taken out, by their names."""
    entries = await git.run(
        "rev-list", "--walk-reflogs", "--ignore-missing", "refs/stash", "--",
        at=worktree.history, accept=(0, 128),
    )  # fmt: skip
    return {f"stash@{{{number}}}": sha for number, sha in enumerate(lines(entries))}


async def adds_to(
    git: Git, worktree: Worktree, commits: Collection[str], known: Collection[str]
) -> bool:
    """Return whether commits lead to one that neither the base nor the commits `known` have."""
    wanted = [*commits, *(f"^{sha}" for sha in (worktree.base_sha, *known))]
    found = await git.run(
        "rev-list", "--max-count=1", "--stdin",
        at=worktree.history, stdin="".join(f"{row}\n" for row in wanted).encode(),
    )  # fmt: skip
    return bool(found)
