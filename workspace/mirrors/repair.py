"""A fresh mirror in the place of a damaged one, with its sound objects and refs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from workspace.git.runner import TREE_SECONDS, Git, GitError, GitLocation
from workspace.git.text import lines

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_HASHES = {40: hashlib.sha1, 64: hashlib.sha256}
_REF = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) (refs/(?!remotes/).+)")
_LFS = "lfs"
"""The files of LFS that jobs have added; the remote may not have them yet."""


async def replace_mirror(git: Git, mirror: Path, fresh: Path, aside: Path) -> None:
    """Put a fresh mirror in the place of a damaged one, whose lock is held.

    Whoever takes the lock after a kill in the middle of it calls `finish_replacement`.

    Args:
        git: runs the commands.
        mirror: the damaged one.
        fresh: has all the remote has.
        aside: an empty directory, which the damaged one is moved into. All three are on the same
            file system.
    """
    # Most is carried over while jobs still work in it, because it takes long.
    await carry_over(git, mirror, fresh)
    _exchange(mirror, fresh, aside / mirror.name)
    await finish_replacement(git, mirror)


def is_being_replaced(mirror: Path) -> bool:
    """Tell whether a replacement is under way, or was interrupted."""
    return _pointer_of(mirror).is_symlink()


async def finish_replacement(git: Git, mirror: Path) -> None:
    """Bring a replacement to its end that was interrupted, if there is one. Repeatable.

    The mirror's lock is held. If the fresh mirror is lost, the damaged one comes back.
    """
    if not is_being_replaced(mirror):
        return
    damaged = _exchanged(mirror)
    if damaged is not None:
        # Jobs have worked in it until it was moved.
        await carry_over(git, damaged, mirror)
        _move_lfs_files(damaged, mirror)
    _pointer_of(mirror).unlink()


async def carry_over(git: Git, damaged: Path, fresh: Path) -> None:
    """Bring what only a damaged mirror has into a fresh one, as far as it is sound.

    Args:
        git: runs the commands.
        damaged: the mirror; nothing in it is changed.
        fresh: a mirror on the same file system, which has all the remote has. What was carried over
            before is not looked at again.
    """
    await asyncio.to_thread(_link_loose_objects, damaged / "objects", fresh / "objects")
    for index in _packs(damaged):
        await _link_pack(git, index, fresh)
    known = await asyncio.to_thread(_refs, fresh)
    for name, sha in (await asyncio.to_thread(_refs, damaged)).items():
        if known.get(name) == sha:
            continue
        try:
            # It walks through everything that the remote has not, and fails where a part is gone.
            reach = ("rev-list", "--objects", "--quiet", sha, "--not", "--remotes=origin", "--")
            await git.run(*reach, at=GitLocation(fresh), timeout=TREE_SECONDS)
            await git.run("update-ref", "--no-deref", name, sha, at=GitLocation(fresh))
        except GitError as error:
            _log.warning("%s stays in the damaged copy of %s: %s", name, damaged, error)


def _move_lfs_files(damaged: Path, fresh: Path) -> None:
    if (damaged / _LFS).exists():
        _merge(damaged / _LFS, fresh / _LFS)


def _merge(source: Path, target: Path) -> None:
    """Move a file or directory to where a command that was under way may have made one."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for entry in list(source.iterdir()):
            _merge(entry, target / entry.name)


def _exchange(mirror: Path, fresh: Path, damaged: Path) -> None:
    # A link is there or it is not, whatever dies.
    _pointer_of(mirror).symlink_to(damaged)
    mirror.rename(damaged)
    fresh.rename(mirror)


def _exchanged(mirror: Path) -> Path | None:
    """Return where the damaged mirror is; None when it stayed or had to come back."""
    damaged = _pointer_of(mirror).readlink()
    if damaged.is_dir() and not mirror.is_dir():
        damaged.rename(mirror)
    return damaged if damaged.is_dir() else None


def _pointer_of(mirror: Path) -> Path:
    """Return the link that leads to the damaged mirror while a fresh one takes its place."""
    return mirror.with_suffix(".replaced")


def _link_loose_objects(source: Path, target: Path) -> None:
    for file in source.glob("??/*"):
        link = target / file.parent.name / file.name
        if not link.exists() and _is_sound(file):
            link.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileExistsError):
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
    directory = fresh / "objects" / "pack"
    if (directory / index.name).exists():
        return
    try:
        await git.run("verify-pack", "--", str(index), at=GitLocation(fresh), timeout=TREE_SECONDS)
    except GitError as error:
        _log.warning("The pack %s is damaged: %s", index, error)
        return
    # The index comes last: with it the pack is complete.
    for file in sorted(index.parent.glob(f"{index.stem}.*"), key=lambda file: file == index):
        if not (directory / file.name).exists():
            os.link(file, directory / file.name)


def _refs(mirror: Path) -> dict[str, str]:
    """Return the local refs that can be read, by name; git itself stops at the first bad one."""
    rows = [*_lines(mirror / "packed-refs")]
    for file in (mirror / "refs").rglob("*"):
        if file.is_file():
            rows += [f"{line} {file.relative_to(mirror)}" for line in _lines(file)]
    found = (_REF.fullmatch(row) for row in rows)
    return {match[2]: match[1] for match in found if match is not None}


def _lines(file: Path) -> Iterator[str]:
    if file.is_file():
        yield from lines(file.read_text("utf-8", "surrogateescape"))
