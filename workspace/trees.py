"""Directory trees that go away: out of sight at once, deleted afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from pathlib import Path


def move_aside(path: Path, trash: Path) -> Path | None:
    """Rename a directory into `trash`, which is on the same file system.

    Its own time becomes the present, so that its age is how long it has been there.

    Returns:
        What is to be deleted; None when there is no such directory.
    """
    if not path.is_dir():
        return None
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(path)
    return path.rename(trash / f"{path.name}-{uuid.uuid4().hex}")


def delete_tree(path: Path) -> None:
    """Delete a directory as far as possible, read-only ones in it included."""
    for parent, directories, _ in os.walk(path):
        for name in directories:
            _open_up(Path(parent, name))
    shutil.rmtree(path, ignore_errors=True)


def _open_up(directory: Path) -> None:
    # It may be somebody else's, or be deleted at this moment by another process.
    with contextlib.suppress(OSError):
        mode = directory.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            directory.chmod(stat.S_IRWXU)
