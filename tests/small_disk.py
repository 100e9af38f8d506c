"""A disk that is soon full, below a directory of a test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE = "16m"
CHUNK = 4096


def can_mount() -> bool:
    """Whether this user may mount a small disk."""
    return os.geteuid() == 0


class SmallDisk:
    """A mounted disk, with a file that can fill it."""

    def __init__(self, path: Path) -> None:
        self._filler = path / ".filler"

    def fill(self, but: int = 0) -> None:
        """Leave `but` bytes free."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(CHUNK))
        size = max(0, self._filler.stat().st_size - but)
        os.truncate(self._filler, size)

    def free(self) -> None:
        self._filler.unlink()


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Mount one for a while; needs the right to mount."""
    path.mkdir(parents=True)
    options = ("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs")
    subprocess.run(("mount", *options, str(path)), check=True, capture_output=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(("umount", "--lazy", str(path)), check=True, capture_output=True)
