"""Branches that Claude made beside the one of its job, and left."""

from __future__ import annotations

from workspace.command import Git, Place, lines
from workspace.network import refs
from workspace.worktree import Worktree

_HEADS = "refs/heads/"


async def other_branches(git: Git, worktree: Worktree, *known: str) -> dict[str, str]:
    """Return the commits of local branches that were made in this worktree, by branch name.

    All worktrees have their branches in common. Which commits were checked out in one stands in its
    log of HEAD; a branch counts when it is still at one of them.

    Args:
        git: runs the commands.
        worktree: of the job, whose own branch is left out.
        known: commits; branches that they contain, or that the remote has, are left out too.
    """
    been = _been_at(worktree)
    found: dict[str, str] = {}
    for ref, sha in (await refs(git, Place(worktree.mirror), _HEADS)).items():
        name = ref.removeprefix(_HEADS)
        if sha in been and name != worktree.branch and await _adds_to(git, worktree, sha, known):
            found[name] = sha
    return found


async def _adds_to(git: Git, worktree: Worktree, sha: str, known: tuple[str, ...]) -> bool:
    beyond = ("--not", worktree.base_sha, *known, "--remotes=origin", "--")
    return bool(await git.run("rev-list", "--max-count=1", sha, *beyond, at=worktree.history))


def _been_at(worktree: Worktree) -> set[str]:
    try:
        log = (worktree.git_dir / "logs" / "HEAD").read_text("utf-8", "replace")
    except OSError:
        return set()
    # `<old sha> <new sha> <who and when>TAB<what>`
    rows = (line.split(" ", 2) for line in lines(log))
    return {row[1] for row in rows if len(row) == 3}
