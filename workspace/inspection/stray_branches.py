"""Commits outside the job's branch: other branches, tags and stash entries."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from sandbox import files
from workspace.git.refs import HEADS, SHA
from workspace.git.runner import Git, OutputTooLong
from workspace.git.text import lines
from workspace.inspection.head import commits_of
from workspace.worktree.worktree import Worktree

_MAX_LOG_BYTES = 64 * 1024 * 1024
_STASH = "refs/stash"
# `<old sha> <new sha> <author and time>TAB<message>`
_REFLOG_ENTRY = re.compile(rf"[0-9a-f]+ ({SHA.pattern}) ")


async def list_lines(git: Git, worktree: Worktree) -> dict[str, str]:
    """Return the object of every branch and tag and of the stash, by full name."""
    listing = await git.run(
        "for-each-ref", "--format=%(objectname) %(refname)", HEADS, "refs/tags/", _STASH,
        at=worktree.history,
    )  # fmt: skip
    rows = (line.split(" ") for line in lines(listing))
    return {name: sha for sha, name in rows}


async def stray_commits(
    git: Git, worktree: Worktree, known: Collection[str], refs: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the commits of Claude's other branches, tags and stash entries, by name.

    Args:
        git: runs the commands.
        worktree: the job's. Its own branch is left out.
        known: commits. Refs that are part of their history are left out.
        refs: the result of `list_lines`, if the caller has it.
    """
    refs = await list_lines(git, worktree) if refs is None else refs
    names = {name.removeprefix(HEADS): name for name in refs if name != _STASH}
    names.pop(worktree.branch or "", None)
    names |= _stash_entries(worktree) or ({"stash": _STASH} if _STASH in refs else {})
    not_new = {worktree.base_sha, *known}
    names = {name: ref for name, ref in names.items() if refs.get(ref, ref) not in not_new}
    if not names:
        return {}
    resolved = await commits_of(git, worktree, names.values())
    commits = {name: resolved[ref] for name, ref in names.items() if ref in resolved}
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
    if {worktree.base_sha, *known}.issuperset(commits):
        return False
    output = await git.run(
        "rev-list", "--max-count=1", "--stdin",
        at=worktree.history, stdin=_revision_range(worktree, commits, known),
    )  # fmt: skip
    return bool(output)


def _stash_entries(worktree: Worktree) -> dict[str, str]:
    """Return the commit of each stash entry, by git's name for it, such as `stash@{0}`."""
    log = files.read_text(worktree.git_dir, f"logs/{_STASH}", limit=_MAX_LOG_BYTES) or ""
    entries = [match[1] for match in map(_REFLOG_ENTRY.match, lines(log)) if match is not None]
    return {f"stash@{{{number}}}": sha for number, sha in enumerate(reversed(entries))}


def _revision_range(worktree: Worktree, commits: Collection[str], known: Collection[str]) -> bytes:
    rows = [*commits, *(f"^{sha}" for sha in (worktree.base_sha, *known))]
    return "".join(f"{row}\n" for row in rows).encode()
