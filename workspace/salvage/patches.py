"""Converts commits to patches and back. A patch is text, whatever the encoding of the files."""

from __future__ import annotations

import re
from pathlib import Path

from workspace.author import ORCHESTRATOR
from workspace.git.runner import TREE_SECONDS, Git, GitLocation, OutputTooLong
from workspace.git.scratch_repository import scratch_repository

# NUL, and bytes that are not UTF-8 (as Python's surrogates). No text column can hold them.
_NOT_TEXT = re.compile("[\0\udc80-\udcff]")


async def patch_between(
    git: Git, objects: Path, scratch: Path, base: str, sha: str, max_bytes: int
) -> str | None:
    """Return the changes from one commit to another as a patch for `git apply`.

    Args:
        git: runs the commands.
        objects: the object store with both commits.
        scratch: a directory for a private repository.
        base: the older commit.
        sha: the newer commit.
        max_bytes: the limit. For a longer patch, None is returned.
    """
    async with scratch_repository(scratch, objects, {}) as place:
        patch = await _diff(git, place, base, sha, max_bytes)
        if patch is not None and _is_text(patch):
            return patch
        # With these attributes, git writes all files in its binary form, which is base 85.
        (place.git_dir / "info").mkdir()
        (place.git_dir / "info" / "attributes").write_text("* -diff\n")
        return await _diff(git, place, base, sha, max_bytes)


async def commit_of_patch(git: Git, objects: Path, scratch: Path, base: str, patch: str) -> str:
    """Apply a patch to a commit, and return a commit with the result.

    The patch is applied to an index. No file is written, so a hostile patch cannot reach any file
    of the host. Git refuses paths that are not allowed in a tree.

    Args:
        git: runs the commands.
        objects: the object store with `base`. It also gets the new commit.
        scratch: a directory for a private repository.
        base: the commit that the patch was made from.
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
            "commit-tree", "-m", "Work of a job, from a patch", "-p", base, tree.strip(),
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
    # A file with a late NUL is text for git, so its patch can contain NUL.
    return _NOT_TEXT.search(patch) is None
