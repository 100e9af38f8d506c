"""The files of Git LFS that a job has added, brought from its repository into the mirror."""

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
    """Copy the files that the mirror lacks, in a way that survives a power cut. Idempotent.

    Files over 16 GiB, and those whose content does not match their name, are left out.

    Args:
        git_dir: a repository that a job could have written.
        mirror: the bare repository.
    """
    for name in _lfs_files(git_dir):
        if not (mirror / name).exists():
            try:
                _copy(git_dir, name, mirror / name)
            except (files.UnsafeFile, FileExistsError):
                # It is no file, or another job has brought it meanwhile.
                continue


def _lfs_files(git_dir: Path) -> Iterator[str]:
    """List the files of a repository, as git-lfs lays them out."""
    for first in files.names(git_dir, _ROOT):
        for second in files.names(git_dir, f"{_ROOT}/{first}"):
            for oid in files.names(git_dir, f"{_ROOT}/{first}/{second}"):
                if _OID.fullmatch(oid) and oid.startswith(first + second):
                    yield f"{_ROOT}/{first}/{second}/{oid}"


def _copy(git_dir: Path, name: str, target: Path) -> None:
    with files.opened(git_dir, name, limit=_MAX_BYTES) as source:
        # A sparse file costs a job nothing, but a copy of it would fill the mirrors' disk.
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
    """Return the hash of what can be read, and write it to `sink`."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest()
