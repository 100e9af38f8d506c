"""Ref names, lists of refs, and ancestry of commits."""

from __future__ import annotations

import re

from workspace.git.runner import Git, GitLocation
from workspace.git.text import lines

HEADS = "refs/heads/"
TRACKING = "refs/remotes/origin/"
SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


async def list_refs(git: Git, place: GitLocation, *prefixes: str) -> dict[str, str]:
    """Return the sha of every ref below the prefixes, by full name, without symbolic refs."""
    shas, _ = await list_refs_and_targets(git, place, *prefixes)
    return shas


async def list_refs_and_targets(
    git: Git, place: GitLocation, *prefixes: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return `list_refs`, and the target of every symbolic ref whose target exists."""
    listing = await git.run(
        "for-each-ref", "--format=%(objectname) %(refname) %(symref)", *prefixes, at=place
    )
    rows = [line.split(" ") for line in lines(listing)]
    shas = {name: sha for sha, name, target in rows if not target}
    targets = {name: target for _, name, target in rows if target}
    return shas, targets


async def is_ancestor(git: Git, place: GitLocation, ancestor: str, sha: str) -> bool:
    """Return whether `ancestor` is `sha` or one of its ancestors."""
    if ancestor == sha:
        return True
    return await git.check("merge-base", "--is-ancestor", ancestor, sha, at=place)
