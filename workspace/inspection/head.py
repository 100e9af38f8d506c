"""Which commit stands for the work in a worktree."""

from __future__ import annotations

from collections.abc import Iterable

from workspace.git.refs import HEADS, is_ancestor
from workspace.git.runner import Git, GitError
from workspace.git.text import encode, lines
from workspace.worktree.private_repository import branch_in
from workspace.worktree.worktree import Worktree


async def tip(git: Git, worktree: Worktree) -> str:
    """Return the commit that is checked out, unless the job's branch has that and more.

    Claude may have gone back to look at an older commit.
    """
    if has_own_branch_checked_out(worktree):
        return await commit_of(git, worktree, "HEAD") or worktree.base_sha
    head, branch = await ends(git, worktree)
    if branch is None:
        return head
    return branch if await is_ancestor(git, worktree.history, head, branch) else head


def has_own_branch_checked_out(worktree: Worktree) -> bool:
    """Return whether HEAD is the job's own branch, as it was made."""
    return worktree.branch is not None and branch_in(worktree.git_dir) == worktree.branch


async def ends(git: Git, worktree: Worktree) -> tuple[str, str | None]:
    """Return the commit that is checked out, and that of the job's branch if there is one."""
    names = ["HEAD"] if worktree.branch is None else ["HEAD", HEADS + worktree.branch]
    try:
        commits = await commits_of(git, worktree, names)
    except GitError:
        # One commit is damaged; the other may be sound.
        found = [(name, await commit_of(git, worktree, name)) for name in names]
        commits = {name: sha for name, sha in found if sha is not None}
    return commits.get("HEAD", worktree.base_sha), commits.get(names[-1]) if names[1:] else None


async def commit_of(git: Git, worktree: Worktree, revision: str) -> str | None:
    """Return the commit that a ref of the worktree leads to; None when it leads nowhere."""
    found = await git.run(
        "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}",
        at=worktree.history, accept=(0, 1, 128),
    )  # fmt: skip
    return found.strip() or None


async def commits_of(git: Git, worktree: Worktree, revisions: Iterable[str]) -> dict[str, str]:
    """Return the commit of each revision that leads to one."""
    revisions = list(revisions)
    answers = await git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype)",
        at=worktree.history, stdin=encode("".join(f"{name}^{{commit}}\n" for name in revisions)),
    )  # fmt: skip
    return {
        revision: answer.removesuffix(" commit")
        for revision, answer in zip(revisions, lines(answers), strict=False)
        if answer.endswith(" commit")
    }
