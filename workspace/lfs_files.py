"""The files of Git LFS that a job has added, brought from its repository into the mirror."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sandbox import files

_CHUNK = 1 << 20
_MAX_BYTES = 1 << 40
_ROOT = "lfs/objects"
_OID = re.compile(r"[0-9a-f]{64}")


def copy_lfs_files(git_dir: Path, mirror: Path) -> None:
    """Copy the files that the mirror has not; each must be as its name says. Idempotent.

    Args:
        git_dir: a repository that a job could have written.
        mirror: the bare repository.
    """
    for name in _lfs_files(git_dir):
        if not (mirror / name).exists():
            _copy(git_dir, name, mirror / name)


def _lfs_files(git_dir: Path) -> Iterator[str]:
    """List the files of a repository, as git-lfs lays them out."""
    for first in files.names(git_dir, _ROOT):
        for second in files.names(git_dir, f"{_ROOT}/{first}"):
            for oid in files.names(git_dir, f"{_ROOT}/{first}/{second}"):
                if _OID.fullmatch(oid) and oid.startswith(first + second):
                    yield f"{_ROOT}/{first}/{second}/{oid}"


def _copy(git_dir: Path, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
    try:
        with os.fdopen(descriptor, "wb") as sink:
            with files.opened(git_dir, name, limit=_MAX_BYTES) as source:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
        if digest.hexdigest() == target.name:
            os.link(draft, target)
    except (files.UnsafeFile, FileExistsError):
        # Nothing that git-lfs would take, or another job has brought it meanwhile.
        return
    finally:
        os.unlink(draft)
