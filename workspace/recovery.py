"""What can be carried over from a damaged mirror: sound objects, the refs they bear, worktrees."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from workspace.command import TREE_SECONDS, Git, GitError, Place

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_HASHES = {40: hashlib.sha1, 64: hashlib.sha256}
_REF = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) (refs/(?:heads|orchestrator)/.+)")
# What belongs to worktrees and not to the remote.
_MOVED = ("worktrees", "lfs")


async def carry_over(git: Git, damaged: Path, fresh: Path) -> None:
    """Bring what only a damaged mirror has into a fresh one, as far as it is sound.

    Args:
        git: runs the commands.
        damaged: the mirror; nothing in it is changed.
        fresh: a mirror on the same file system, which has all the remote has.
    """
    await asyncio.to_thread(_link_loose_objects, damaged / "objects", fresh / "objects")
    for index in _packs(damaged):
        await _link_pack(git, index, fresh)
    for name, sha in (await asyncio.to_thread(_refs, damaged)).items():
        try:
            # It walks through everything that the remote has not, and fails where a part is gone.
            reach = ("rev-list", "--objects", "--quiet", sha, "--not", "--remotes=origin", "--")
            await git.run(*reach, at=Place(fresh), timeout=TREE_SECONDS)
            await git.run("update-ref", "--no-deref", name, sha, at=Place(fresh))
        except GitError as error:
            _log.warning("%s stays in the damaged copy of %s: %s", name, damaged, error)


def move_worktrees(damaged: Path, fresh: Path) -> None:
    """Move what belongs to worktrees, whose files stay where they are."""
    for name in _MOVED:
        if (damaged / name).is_dir():
            (damaged / name).rename(fresh / name)


def _link_loose_objects(source: Path, target: Path) -> None:
    for file in source.glob("??/*"):
        link = target / file.parent.name / file.name
        if not link.exists() and _is_sound(file):
            link.parent.mkdir(exist_ok=True)
            os.link(file, link)


def _is_sound(file: Path) -> bool:
    """Tell whether a loose object is what its name says: the hash of its inflated content."""
    name = file.parent.name + file.name
    if len(name) not in _HASHES:
        return False
    digest, inflate = _HASHES[len(name)](), zlib.decompressobj()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(inflate.decompress(chunk))
    except (OSError, zlib.error):
        return False
    return inflate.eof and digest.hexdigest() == name


def _packs(mirror: Path) -> list[Path]:
    return sorted(mirror.glob("objects/pack/*.idx"))


async def _link_pack(git: Git, index: Path, fresh: Path) -> None:
    try:
        await git.run("verify-pack", "--", str(index), at=Place(fresh), timeout=TREE_SECONDS)
    except GitError as error:
        _log.warning("The pack %s is damaged: %s", index, error)
        return
    for file in index.parent.glob(f"{index.stem}.*"):
        link = fresh / "objects" / "pack" / file.name
        if not link.exists():
            os.link(file, link)


def _refs(mirror: Path) -> dict[str, str]:
    """Return the local refs that can be read, by name; git itself stops at the first bad one."""
    lines = [*_lines(mirror / "packed-refs")]
    for file in (mirror / "refs").rglob("*"):
        if file.is_file():
            lines += [f"{line} {file.relative_to(mirror)}" for line in _lines(file)]
    found = (_REF.fullmatch(line) for line in lines)
    return {match[2]: match[1] for match in found if match is not None}


def _lines(file: Path) -> Iterator[str]:
    if file.is_file():
        yield from file.read_text("utf-8", "surrogateescape").splitlines()
