"""Moving directories aside, and deleting them."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

from sandbox import files


def move_aside(path: Path, trash: Path) -> Path | None:
    """Rename a directory into `trash`, which is on the same file system.

    Returns:
        The new path; None if the directory does not exist.
    """
    if not path.is_dir():
        return None
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The kernel refuses to move a directory that its owner cannot write to.
    path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)
    # Expiry goes by the modification time: the age counts from now.
    os.utime(path)
    return path.rename(trash / f"{path.name}-{uuid.uuid4().hex}")


def delete_tree(path: Path) -> None:
    """Delete a file or directory, including read-only directories. Errors are ignored."""
    with contextlib.suppress(OSError):
        files.remove(path.parent, path.name)
