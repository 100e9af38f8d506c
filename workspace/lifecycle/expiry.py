"""The end of work that was kept: nobody has asked for it in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from workspace.git.runner import GitError, GitLocation
from workspace.git.text import encode, lines
from workspace.lifecycle.worktrees import Worktrees
from workspace.salvage.refs import SALVAGE
from workspace.worktree.deletion import delete_tree

_log = logging.getLogger(__name__)


class Expiry:
    """Forgets what was kept long ago on this machine.

    Args:
        worktrees: the worktrees, and through them the mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git

    async def expire(self, older_than: datetime, spared: Collection[str] = ()) -> list[str]:
        """Forget kept work whose commit is older, and what was moved aside before then. Repeatable.

        The work of the jobs in `spared` stays.

        Moved aside were damaged mirrors, remains of worktrees, repositories that git could not
        work with, and submodules with work. The objects of forgotten work go when the mirror is
        packed. A failure is logged: it does no harm.

        Returns:
            The refs that were deleted.
        """
        expired: list[str] = []
        for mirror in self._mirrors.on_disk():
            try:
                async with self._mirrors.lock(mirror):
                    expired += await self._expire_refs(GitLocation(mirror), older_than, spared)
            except (GitError, OSError) as error:
                _log.warning("Nothing was forgotten in the mirror %s: %s", mirror, error)
        await asyncio.to_thread(_delete_older, self._mirrors.damaged, older_than)
        await asyncio.to_thread(_delete_older, self._worktrees.orphaned, older_than)
        return expired

    async def _expire_refs(
        self, mirror: GitLocation, older_than: datetime, spared: Collection[str]
    ) -> list[str]:
        listing = await self._git.run(
            "for-each-ref", "--format=%(committerdate:unix) %(objectname) %(refname)",
            SALVAGE, at=mirror,
        )  # fmt: skip
        rows = (line.split(" ") for line in lines(listing))
        limit = older_than.timestamp()
        needed = {SALVAGE + job_id for job_id in spared}
        old = {
            name: sha
            for date, sha, name in rows
            # What is no commit has no date, and no work in it.
            if int(date or 0) < limit and name not in needed
        }
        # Work that was added meanwhile has another sha, which stops the deletion.
        commands = "".join(f"delete {name} {sha}\n" for name, sha in old.items())
        data = encode(commands)
        await self._git.run("update-ref", "--no-deref", "--stdin", at=mirror, stdin=data)
        return sorted(old)


def _delete_older(directory: Path, older_than: datetime) -> None:
    for entry in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if entry.lstat().st_mtime < older_than.timestamp():
                delete_tree(entry)
