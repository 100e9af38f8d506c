"""Build trees from commits and from files, and apply the difference of two trees to a third.

With some `.gitattributes`, even a fresh checkout hashes to a different tree than its commit. The
reasons are line endings that `text` would normalize, and files that Git LFS should have stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sandbox import files
from workspace.git.runner import TREE_SECONDS, Git, GitError, GitLocation
from workspace.git.staging import stage_everything
from workspace.git.text import encode

_MAX_INDEX = 1 << 30


async def tree_of(git: Git, place: GitLocation, commit: str) -> str:
    """Return the tree of a commit."""
    return (await git.run("rev-parse", f"{commit}^{{tree}}", at=place)).strip()


async def tree_of_files(git: Git, place: GitLocation, index: Path, head: str) -> str:
    """Write all files except ignored ones as a tree, using a temporary index.

    Args:
        git: runs the commands.
        place: the repository with the files.
        index: the index to start from. Git reads only files that changed since it was written.
        head: the commit to start from if the index is missing or damaged.
    """
    with _private_index(place) as private:
        try:
            await asyncio.to_thread(_copy_index, index, private.index)
            return await _staged(git, private.place)
        except (FileNotFoundError, files.UnsafeFile, GitError):
            # The index or objects in it may be damaged. Without an index, git reads all files.
            private.index.unlink(missing_ok=True)
            await git.run("read-tree", head, at=private.place)
            return await _staged(git, private.place)


async def apply_tree_diff(git: Git, place: GitLocation, onto: str, old: str, new: str) -> str:
    """Return the tree `onto` with the changes from `old` to `new`."""
    if old == new or old == onto:
        return onto if old == new else new
    changes = await git.run(
        "diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", old, new,
        at=place, timeout=TREE_SECONDS,
    )  # fmt: skip
    with _private_index(place) as private:
        await git.run("read-tree", onto, at=private.place, timeout=TREE_SECONDS)
        await git.run(
            "update-index", "-z", "--index-info",
            at=private.place, stdin=_index_info(changes), timeout=TREE_SECONDS,
        )  # fmt: skip
        return await write_tree(git, private.place)


async def changed_names(git: Git, place: GitLocation, old: str, new: str) -> set[str]:
    """Return the paths that differ between two trees."""
    listing = await git.run(
        "diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new,
        at=place, timeout=TREE_SECONDS,
    )  # fmt: skip
    return {name for name in listing.split("\0") if name}


async def write_tree(git: Git, place: GitLocation) -> str:
    """Write the index as a tree and return its sha."""
    return (await git.run("write-tree", at=place, timeout=TREE_SECONDS)).strip()


def _copy_index(index: Path, target: Path) -> None:
    files.copy(index.parent, index.name, target, limit=_MAX_INDEX)


async def _staged(git: Git, place: GitLocation) -> str:
    await stage_everything(git, place, lenient=True)
    return await write_tree(git, place)


def _index_info(raw: str) -> bytes:
    """Convert the output of `diff-tree --raw -z` to the input of `update-index --index-info`."""
    fields = raw.split("\0")
    lines = []
    for change, path in zip(fields[0::2], fields[1::2], strict=False):
        _, mode, _, sha, _ = change.split(" ")
        lines.append((mode, f"{mode} {sha}\t{path}\0"))
    # Deletions come first, because a new file may replace a directory.
    lines.sort(key=lambda line: line[0] != "000000")
    return encode("".join(line for _, line in lines))


class _PrivateIndex:
    def __init__(self, place: GitLocation, directory: Path) -> None:
        self.index = directory / "index"
        self.place = replace(place, index=self.index)


@contextlib.contextmanager
def _private_index(place: GitLocation) -> Iterator[_PrivateIndex]:
    directory = Path(tempfile.mkdtemp(dir=place.git_dir, prefix="index-"))
    try:
        yield _PrivateIndex(place, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
