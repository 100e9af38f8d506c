"""Lines of work that Claude left beside the branch of its job: branches, tags and the stash."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from sandbox import files
from workspace.git.refs import HEADS, SHA
from workspace.git.runner import Git, OutputTooLong
from workspace.git.text import lines
from workspace.inspection.head import commits_of
from workspace.worktree.worktree import Worktree

_MAX_LOG = 64 * 1024 * 1024
_STASH = "refs/stash"
# `<old sha> <new sha> <who and when>TAB<what>`
_STASHED = re.compile(rf"[0-9a-f]+ ({SHA.pattern}) ")


async def list_lines(git: Git, worktree: Worktree) -> dict[str, str]:
    """Return the object of every branch and tag and of the stash, by full name."""
    listing = await git.run(
        "for-each-ref", "--format=%(objectname) %(refname)", HEADS, "refs/tags/", _STASH,
        at=worktree.history,
    )  # fmt: skip
    rows = (line.split(" ") for line in lines(listing))
    return {name: sha for sha, name in rows}


async def other_lines(
    git: Git, worktree: Worktree, known: Collection[str], refs: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the commits of Claude's other branches, tags and stash entries, by name.

    Args:
        git: runs the commands.
        worktree: the job's; its own branch is left out.
        known: commits. Lines that are part of their history are left out too.
        refs: from `list_lines`, if it was called before.
    """
    refs = await list_lines(git, worktree) if refs is None else refs
    named = {name.removeprefix(HEADS): name for name in refs if name != _STASH}
    named.pop(worktree.branch or "", None)
    named |= _stash(worktree) or ({"stash": _STASH} if _STASH in refs else {})
    no_news = {worktree.base_sha, *known}
    named = {name: ref for name, ref in named.items() if refs.get(ref, ref) not in no_news}
    if not named:
        return {}
    commits = await commits_of(git, worktree, named.values())
    found = {name: commits[ref] for name, ref in named.items() if ref in commits}
    if not found:
        return {}
    span = _span(worktree, found.values(), known)
    try:
        new = {*lines(await git.run("rev-list", "--stdin", at=worktree.history, stdin=span))}
    except OutputTooLong:
        # Claude has fetched another project. Keeping lines that are known does no harm.
        return found
    return {name: sha for name, sha in found.items() if sha in new}


async def adds_to(
    git: Git, worktree: Worktree, commits: Collection[str], known: Collection[str]
) -> bool:
    """Return whether commits lead to one that neither the base nor the commits `known` have."""
    if {worktree.base_sha, *known}.issuperset(commits):
        return False
    found = await git.run(
        "rev-list", "--max-count=1", "--stdin",
        at=worktree.history, stdin=_span(worktree, commits, known),
    )  # fmt: skip
    return bool(found)


def _stash(worktree: Worktree) -> dict[str, str]:
    """Return the present entries of the stash, by the names that git gives them."""
    log = files.read_text(worktree.git_dir, f"logs/{_STASH}", limit=_MAX_LOG) or ""
    entries = [row[1] for row in map(_STASHED.match, lines(log)) if row is not None]
    return {f"stash@{{{number}}}": sha for number, sha in enumerate(reversed(entries))}


def _span(worktree: Worktree, commits: Collection[str], known: Collection[str]) -> bytes:
    wanted = [*commits, *(f"^{sha}" for sha in (worktree.base_sha, *known))]
    return "".join(f"{row}\n" for row in wanted).encode()
