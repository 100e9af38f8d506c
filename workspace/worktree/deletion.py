"""Directory trees that go away: out of sight at once, deleted afterwards."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

from sandbox import files


def move_aside(path: Path, trash: Path) -> Path | None:
    """Rename a directory into `trash`, which is on the same file system.

    Its own time becomes the present, so that its age is how long it has been there.

    Returns:
        What is to be deleted; None when there is no such directory.
    """
    if not path.is_dir():
        return None
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The kernel moves no directory that its owner may not write to.
    path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)
    os.utime(path)
    return path.rename(trash / f"{path.name}-{uuid.uuid4().hex}")


def delete_tree(path: Path) -> None:
    """Delete a directory or a file as far as possible; read-only directories are no obstacle."""
    with contextlib.suppress(OSError):
        files.remove(path.parent, path.name)
