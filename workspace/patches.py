"""Patches that are text, whatever the encoding of the files in them."""

from __future__ import annotations

from pathlib import Path

from workspace.command import TREE_SECONDS, Git
from workspace.private_repository import private_repository


async def patch_between(git: Git, objects: Path, scratch: Path, base: str, sha: str) -> str:
    """Return the changes from one commit to another, in the form that `git apply` takes.

    Args:
        git: runs the commands.
        objects: the object store that has both commits.
        scratch: a directory for a private repository.
        base: the older commit.
        sha: the newer commit.
    """
    async with private_repository(scratch, objects, {}) as place:

        async def diff() -> str:
            return await git.run(
                "diff", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color",
                base, sha, "--", at=place, timeout=TREE_SECONDS,
            )  # fmt: skip

        patch = await diff()
        if _is_text(patch):
            return patch
        # Without a text form for any file, git writes them all in base 85.
        (place.git_dir / "info").mkdir()
        (place.git_dir / "info" / "attributes").write_text("* -diff\n")
        return await diff()


def _is_text(patch: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in patch)
