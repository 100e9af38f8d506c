"""Replace a damaged mirror by a fresh one, and carry over its intact objects and refs."""

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

from workspace.git.refs import SHA
from workspace.git.runner import TREE_SECONDS, Git, GitError, GitLocation
from workspace.git.text import lines

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_HASHES = {40: hashlib.sha1, 64: hashlib.sha256}
_REF = re.compile(rf"({SHA.pattern}) (refs/(?!remotes/).+)")
_LFS = "lfs"
"""LFS files that jobs have added. The remote may not have them yet."""


async def replace_mirror(git: Git, mirror: Path, fresh: Path, aside: Path) -> None:
    """Replace a damaged mirror by a fresh one, while holding the lock of the mirror.

    If the process is killed, the next holder of the lock calls `finish_replacement`. All paths are
    on one file system.

    Args:
        git: runs the commands.
        mirror: the damaged mirror.
        fresh: a mirror with everything that the remote has.
        aside: an empty directory. The damaged mirror is moved into it.
    """
    # This takes long, so most objects are carried over while jobs still use the damaged mirror.
    await carry_over(git, mirror, fresh)
    _exchange(mirror, fresh, aside / mirror.name)
    await finish_replacement(git, mirror)


def is_being_replaced(mirror: Path) -> bool:
    """Return whether a replacement is in progress or was interrupted."""
    return _pointer_of(mirror).is_symlink()


async def finish_replacement(git: Git, mirror: Path) -> None:
    """Finish an interrupted replacement, if there is one. Idempotent.

    The caller holds the mirror's lock. If the fresh mirror is lost, the damaged one is restored.
    """
    if not is_being_replaced(mirror):
        return
    damaged = _exchanged(mirror)
    if damaged is not None:
        # Jobs could add objects until the mirror was moved.
        await carry_over(git, damaged, mirror)
        _move_lfs_files(damaged, mirror)
    _pointer_of(mirror).unlink()


async def carry_over(git: Git, damaged: Path, fresh: Path) -> None:
    """Copy intact objects and refs that only a damaged mirror has into a fresh one. Idempotent.

    Objects that were copied before are not checked again.

    Args:
        git: runs the commands.
        damaged: the damaged mirror, which stays unchanged.
        fresh: a mirror on the same file system, with everything that the remote has.
    """
    await asyncio.to_thread(_link_loose_objects, damaged / "objects", fresh / "objects")
    for index in _packs(damaged):
        await _link_pack(git, index, fresh)
    known = await asyncio.to_thread(_refs, fresh)
    for name, sha in (await asyncio.to_thread(_refs, damaged)).items():
        if known.get(name) == sha:
            continue
        try:
            # This walks all objects that the remote does not have. It fails if one is missing.
            reach = ("rev-list", "--objects", "--quiet", sha, "--not", "--remotes=origin", "--")
            await git.run(*reach, at=GitLocation(fresh), timeout=TREE_SECONDS)
            await git.run("update-ref", "--no-deref", name, sha, at=GitLocation(fresh))
        except GitError as error:
            _log.warning("The ref %s stays in the damaged mirror %s: %s", name, damaged, error)


def _move_lfs_files(damaged: Path, fresh: Path) -> None:
    if (damaged / _LFS).exists():
        _merge(damaged / _LFS, fresh / _LFS)


def _merge(source: Path, target: Path) -> None:
    """Move a file or directory, and merge it with a file that a running command has created."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for entry in list(source.iterdir()):
            _merge(entry, target / entry.name)


def _exchange(mirror: Path, fresh: Path, damaged: Path) -> None:
    # Creating a link is atomic, so a kill leaves it complete or absent.
    _pointer_of(mirror).symlink_to(damaged)
    mirror.rename(damaged)
    fresh.rename(mirror)


def _exchanged(mirror: Path) -> Path | None:
    """Return the path of the damaged mirror; None if it was not moved, or was restored."""
    damaged = _pointer_of(mirror).readlink()
    if damaged.is_dir() and not mirror.is_dir():
        damaged.rename(mirror)
    return damaged if damaged.is_dir() else None


def _pointer_of(mirror: Path) -> Path:
    """Return the link to the damaged mirror, which exists during a replacement."""
    return mirror.with_suffix(".replaced")


def _link_loose_objects(source: Path, target: Path) -> None:
    for file in source.glob("??/*"):
        link = target / file.parent.name / file.name
        if not link.exists() and _is_sound(file):
            link.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(file, link)


def _is_sound(file: Path) -> bool:
    """Return whether the name of a loose object is the hash of its inflated content."""
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
    # The index is last: it makes the pack usable.
    for file in sorted(index.parent.glob(f"{index.stem}.*"), key=lambda file: file == index):
        if not (directory / file.name).exists():
            os.link(file, directory / file.name)


def _refs(mirror: Path) -> dict[str, str]:
    """Return all readable local refs by name. Git itself stops at the first bad one."""
    rows = [*_lines(mirror / "packed-refs")]
    for file in (mirror / "refs").rglob("*"):
        if file.is_file():
            rows += [f"{line} {file.relative_to(mirror)}" for line in _lines(file)]
    found = (_REF.fullmatch(row) for row in rows)
    return {match[2]: match[1] for match in found if match is not None}


def _lines(file: Path) -> Iterator[str]:
    if file.is_file():
        yield from lines(file.read_text("utf-8", "surrogateescape"))
