"""A lock file for each worker process, which shows whether the process is running."""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from pathlib import Path

_ID = re.compile(r"[0-9a-f]{12}")


class WorkerProcess:
    """The identity of this process, with a lock that the kernel releases when it ends.

    Args:
        directory: shared by all worker processes of one installation on this host.
    """

    def __init__(self, directory: Path) -> None:
        self.id = uuid.uuid4().hex[:12]
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self._file(self.id), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def is_alive(self, boot_id: str) -> bool:
        """Return whether a worker process is running; delete the file of a dead one."""
        if not _ID.fullmatch(boot_id):
            return False
        try:
            other = os.open(self._file(boot_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(other)
        self._file(boot_id).unlink(missing_ok=True)
        return False

    def dead(self) -> frozenset[str]:
        """Return the ids of processes that ended without `end`. Each is returned only once."""
        others = {file.stem for file in self._directory.glob("*.lock")} - {self.id}
        return frozenset(boot_id for boot_id in others if not self.is_alive(boot_id))

    def end(self) -> None:
        """Release the lock and delete its file."""
        self._file(self.id).unlink(missing_ok=True)
        os.close(self._lock)

    def _file(self, boot_id: str) -> Path:
        return self._directory / f"{boot_id}.lock"
