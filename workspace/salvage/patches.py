"""Patches that are text, whatever the encoding of the files in them, and commits made of them."""

from __future__ import annotations

import re
from pathlib import Path

from workspace.git.author import ORCHESTRATOR
from workspace.git.runner import TREE_SECONDS, Git, GitLocation, OutputTooLong
from workspace.git.scratch_repository import scratch_repository

# Bytes that are not UTF-8, as Python keeps them, and what no column of text can hold.
_NO_TEXT = re.compile("[\0\udc80-\udcff]")


async def patch_between(
    git: Git, objects: Path, scratch: Path, base: str, sha: str, max_bytes: int
) -> str | None:
    """Return the changes from one commit to another, in the form that `git apply` takes.

    Args:
        git: runs the commands.
        objects: the object store that has both commits.
        scratch: a directory for a private repository.
        base: the older commit.
        sha: the newer commit.
        max_bytes: the longest patch; None is returned in place of a longer one.
    """
    async with scratch_repository(scratch, objects, {}) as place:
        patch = await _diff(git, place, base, sha, max_bytes)
        if patch is not None and _is_text(patch):
            return patch
        # Without a text form for any file, git deflates them all and writes them in base 85.
        (place.git_dir / "info").mkdir()
        (place.git_dir / "info" / "attributes").write_text("* -diff\n")
        return await _diff(git, place, base, sha, max_bytes)


async def commit_of_patch(git: Git, objects: Path, scratch: Path, base: str, patch: str) -> str:
    """Apply a patch to a commit and return the commit that has the result.

    No file is written, so that nothing a hostile patch names is followed or touched; git refuses
    paths that no tree may have.

    Args:
        git: runs the commands.
        objects: the object store that has `base`, and gets the new commit.
        scratch: a directory for a private repository.
        base: the commit the patch was made from.
        patch: from `patch_between`.
    """
    async with scratch_repository(scratch, objects, {}) as place:
        await git.run("read-tree", base, at=place, timeout=TREE_SECONDS)
        if patch:
            await git.run(
                "apply", "--cached", "--whitespace=nowarn",
                at=place, stdin=patch.encode("utf-8", "replace"), timeout=TREE_SECONDS,
            )  # fmt: skip
        tree = await git.run("write-tree", at=place, timeout=TREE_SECONDS)
        commit = await git.run(
            "commit-tree", "-m", "Work of a job, from its patch", "-p", base, tree.strip(),
            at=place, variables=ORCHESTRATOR.environment(),
        )  # fmt: skip
    return commit.strip()


async def _diff(git: Git, place: GitLocation, base: str, sha: str, max_bytes: int) -> str | None:
    try:
        return await git.run(
            "diff", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color",
            base, sha, "--", at=place, timeout=TREE_SECONDS, max_output=max_bytes,
        )  # fmt: skip
    except OutputTooLong:
        return None


def _is_text(patch: str) -> bool:
    """Tell whether it is UTF-8 without NUL; git takes a file for text when a NUL comes late."""
    return _NO_TEXT.search(patch) is None
