"""The commit that holds the work of a job."""

from __future__ import annotations

from collections.abc import Iterable

from workspace.git.refs import HEADS, is_ancestor
from workspace.git.runner import Git, GitError
from workspace.git.text import encode, lines
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
    return branch if await is_ancestor(git, worktree.history, head, branch) else head


def has_own_branch_checked_out(worktree: Worktree) -> bool:
    """Return whether HEAD is the branch that the worktree was created with."""
    return worktree.branch is not None and branch_in(worktree.git_dir) == worktree.branch


async def head_and_branch(git: Git, worktree: Worktree) -> tuple[str, str | None]:
    """Return the commits of HEAD and of the job's branch; None if that branch does not exist."""
    names = ["HEAD"] if worktree.branch is None else ["HEAD", HEADS + worktree.branch]
    try:
        commits = await commits_of(git, worktree, names)
    except GitError:
        # One of the commits is damaged. The other may be intact.
        resolved = [(name, await commit_of(git, worktree, name)) for name in names]
        commits = {name: sha for name, sha in resolved if sha is not None}
    return commits.get("HEAD", worktree.base_sha), commits.get(names[-1]) if names[1:] else None


async def commit_of(git: Git, worktree: Worktree, revision: str) -> str | None:
    """Return the commit of a revision; None if it does not exist or names no commit."""
    output = await git.run(
        "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}",
        at=worktree.history, accept=(0, 1, 128),
    )  # fmt: skip
    return output.strip() or None


async def commits_of(git: Git, worktree: Worktree, revisions: Iterable[str]) -> dict[str, str]:
    """Return the commit of each revision, and leave out revisions that have none."""
    revisions = list(revisions)
    output = await git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype)",
        at=worktree.history, stdin=encode("".join(f"{name}^{{commit}}\n" for name in revisions)),
    )  # fmt: skip
    return {
        revision: answer.removesuffix(" commit")
        for revision, answer in zip(revisions, lines(output), strict=False)
        if answer.endswith(" commit")
    }
