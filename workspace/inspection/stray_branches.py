"""Commits outside the job's branch: other branches, tags and stash entries."""

from __future__ import annotations

import re
from collections.abc import Collection

from sandbox import files
from workspace.git.runner import Git, OutputTooLong, lines
from workspace.worktree.worktree import Worktree

_MAX_LOG_BYTES = 64 * 1024 * 1024
_STASH = "refs/stash"
# `<old sha> <new sha> <author and time>TAB<message>`
_REFLOG_ENTRY = re.compile(r"[0-9a-f]+ ([0-9a-f]{40}|[0-9a-f]{64}) ")


async def stray_commits(git: Git, worktree: Worktree, known: Collection[str]) -> dict[str, str]:
    """Return the commits of Claude's other branches, tags and stash entries, by name.

    Args:
        git: runs the commands.
        worktree: the job's. Its own branch is left out.
        known: commits. Refs that are part of their history are left out.
    """
    output = await git.run(
        "for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", at=worktree.history
    )
    refs = {name.removeprefix("refs/heads/"): name for name in lines(output)}
    refs.pop(worktree.branch or "", None)
    commits = await _resolve(git, worktree, refs | _stash_entries(worktree))
    if not commits:
        return {}
    arguments = _revision_range(worktree, commits.values(), known)
    try:
        new = {*lines(await git.run("rev-list", "--stdin", at=worktree.history, stdin=arguments))}
    except OutputTooLong:
        # Claude has fetched another project. Keeping commits that are known does no harm.
        return commits
    return {name: sha for name, sha in commits.items() if sha in new}


async def has_new_commits(
    git: Git, worktree: Worktree, commits: Collection[str], known: Collection[str]
) -> bool:
    """Return whether `commits` reach a commit that neither the base nor `known` reach."""
    output = await git.run(
        "rev-list", "--max-count=1", "--stdin",
        at=worktree.history, stdin=_revision_range(worktree, commits, known),
    )  # fmt: skip
    return bool(output)


def _stash_entries(worktree: Worktree) -> dict[str, str]:
    """Return the commit of each stash entry, by git's name for it, such as `stash@{0}`."""
    log = files.read_text(worktree.git_dir, f"logs/{_STASH}", limit=_MAX_LOG_BYTES) or ""
    entries = [match[1] for match in map(_REFLOG_ENTRY.match, lines(log)) if match is not None]
    stashed = {f"stash@{{{number}}}": sha for number, sha in enumerate(reversed(entries))}
    return stashed or {"stash": _STASH}


async def _resolve(git: Git, worktree: Worktree, revisions: dict[str, str]) -> dict[str, str]:
    """Replace each revision by its commit, and drop those that have none."""
    requests = "".join(f"{revision}^{{commit}}\n" for revision in revisions.values())
    output = await git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype)",
        at=worktree.history, stdin=requests.encode("utf-8", "surrogateescape"),
    )  # fmt: skip
    answers = zip(revisions, lines(output), strict=False)
    return {
        name: answer.removesuffix(" commit")
        for name, answer in answers
        if answer.endswith(" commit")
    }


def _revision_range(worktree: Worktree, commits: Collection[str], known: Collection[str]) -> bytes:
    rows = [*commits, *(f"^{sha}" for sha in (worktree.base_sha, *known))]
    return "".join(f"{row}\n" for row in rows).encode()
