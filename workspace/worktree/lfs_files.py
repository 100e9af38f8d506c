"""Copies the LFS files that a job has added from its repository into the mirror."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sandbox import files

_CHUNK = 1 << 20
_MAX_BYTES = 16 << 30
"""GitHub takes files of up to 5 GB."""
_ROOT = "lfs/objects"
_OID = re.compile(r"[0-9a-f]{64}")


def copy_lfs_files(git_dir: Path, mirror: Path) -> None:
    """Copy the files that the mirror does not have. Safe at a power cut. Idempotent.

    Files over 16 GiB and files whose content does not match their name are skipped.

    Args:
        git_dir: a repository that a job could have written.
        mirror: the bare repository.
    """
    for name in _lfs_files(git_dir):
        if not (mirror / name).exists():
            try:
                _copy(git_dir, name, mirror / name)
            except (files.UnsafeFile, FileExistsError):
                # It is not a regular file, or another job has copied it in the meantime.
                continue


def _lfs_files(git_dir: Path) -> Iterator[str]:
    """Yield the LFS files of a repository: `lfs/objects/ab/cd/abcd...`."""
    for first in files.names(git_dir, _ROOT):
        for second in files.names(git_dir, f"{_ROOT}/{first}"):
            for oid in files.names(git_dir, f"{_ROOT}/{first}/{second}"):
                if _OID.fullmatch(oid) and oid.startswith(first + second):
                    yield f"{_ROOT}/{first}/{second}/{oid}"


def _copy(git_dir: Path, name: str, target: Path) -> None:
    with files.opened(git_dir, name, limit=_MAX_BYTES) as source:
        # Check before copying: the copy of a sparse file could fill the disk of the mirrors.
        if _digest(source, None) != target.name:
            return
        source.seek(0)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as sink:
                digest = _digest(source, sink)
                sink.flush()
                os.fsync(descriptor)
            if digest == target.name:
                os.link(draft, target)
        finally:
            os.unlink(draft)


def _digest(source: BinaryIO, sink: BinaryIO | None) -> str:
    """Return the hash of the rest of `source`, and copy it to `sink` if there is one."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest()
