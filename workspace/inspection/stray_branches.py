"""Lines of work that Claude left beside the branch of its job: branches, tags and the stash."""

from __future__ import annotations

import re
from collections.abc import Collection

from sandbox import files
from workspace.git.runner import Git, OutputTooLong, lines
from workspace.worktree.worktree import Worktree

_MAX_LOG = 64 * 1024 * 1024
_STASH = "refs/stash"
# `<old sha> <new sha> <who and when>TAB<what>`
_STASHED = re.compile(r"[0-9a-f]+ ([0-9a-f]{40}|[0-9a-f]{64}) ")


async def stray_commits(git: Git, worktree: Worktree, known: Collection[str]) -> dict[str, str]:
    """Return the commits of Claude's other branches, tags and stash entries, by name.

    Args:
        git: runs the commands.
        worktree: the job's; its own branch is left out.
        known: commits. Lines that are part of their history are left out too.
    """
    listing = await git.run(
        "for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", at=worktree.history
    )
    named = {name.removeprefix("refs/heads/"): name for name in lines(listing)}
    named.pop(worktree.branch or "", None)
    found = await _commits(git, worktree, named | _stash(worktree))
    if not found:
        return {}
    span = _span(worktree, found.values(), known)
    try:
        new = {*lines(await git.run("rev-list", "--stdin", at=worktree.history, stdin=span))}
    except OutputTooLong:
        # Claude has fetched another project. Keeping lines that are known does no harm.
        return found
    return {name: sha for name, sha in found.items() if sha in new}


async def has_new_commits(
    git: Git, worktree: Worktree, commits: Collection[str], known: Collection[str]
) -> bool:
    """Return whether commits lead to one that neither the base nor the commits `known` have."""
    found = await git.run(
        "rev-list", "--max-count=1", "--stdin",
        at=worktree.history, stdin=_span(worktree, commits, known),
    )  # fmt: skip
    return bool(found)


def _stash(worktree: Worktree) -> dict[str, str]:
    """Return the present entries of the stash, by the names that git gives them."""
    log = files.read_text(worktree.git_dir, f"logs/{_STASH}", limit=_MAX_LOG) or ""
    entries = [row[1] for row in map(_STASHED.match, lines(log)) if row is not None]
    stashed = {f"stash@{{{number}}}": sha for number, sha in enumerate(reversed(entries))}
    return stashed or {"stash": _STASH}


async def _commits(git: Git, worktree: Worktree, revisions: dict[str, str]) -> dict[str, str]:
    """Return the commit of each revision that has one, by the same names."""
    asked = "".join(f"{revision}^{{commit}}\n" for revision in revisions.values())
    answers = await git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype)",
        at=worktree.history, stdin=asked.encode("utf-8", "surrogateescape"),
    )  # fmt: skip
    answered = zip(revisions, lines(answers), strict=False)
    return {
        name: answer.removesuffix(" commit")
        for name, answer in answered
        if answer.endswith(" commit")
    }


def _span(worktree: Worktree, commits: Collection[str], known: Collection[str]) -> bytes:
    wanted = [*commits, *(f"^{sha}" for sha in (worktree.base_sha, *known))]
    return "".join(f"{row}\n" for row in wanted).encode()
