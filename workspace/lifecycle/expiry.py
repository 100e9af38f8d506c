"""Deletes kept work and moved-aside directories after the retention time."""

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
    """Deletes expired work on this host.

    Args:
        worktrees: the worktrees and their mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git

    async def expire(self, older_than: datetime, exclude: Collection[str] = ()) -> list[str]:
        """Delete salvage refs and moved-aside directories that are older. Idempotent.

        A salvage ref is as old as its commit. Its objects go when the mirror is next packed.
        Moved-aside directories are damaged mirrors, remains of worktrees, broken repositories and
        submodules with work. Errors are logged, and the next call tries again.

        Args:
            older_than: the limit.
            exclude: ids of jobs whose salvage refs stay.

        Returns:
            The deleted refs.
        """
        deleted: list[str] = []
        for mirror in self._mirrors.on_disk():
            try:
                async with self._mirrors.lock(mirror):
                    deleted += await self._expire_refs(GitLocation(mirror), older_than, exclude)
            except (GitError, OSError) as error:
                _log.warning("No expired work was deleted from the mirror %s: %s", mirror, error)
        await asyncio.to_thread(_delete_older, self._mirrors.damaged, older_than)
        await asyncio.to_thread(_delete_older, self._worktrees.orphaned, older_than)
        return deleted

    async def _expire_refs(
        self, mirror: GitLocation, older_than: datetime, exclude: Collection[str]
    ) -> list[str]:
        output = await self._git.run(
            "for-each-ref", "--format=%(committerdate:unix) %(objectname) %(refname)",
            SALVAGE, at=mirror,
        )  # fmt: skip
        rows = (line.split(" ") for line in lines(output))
        limit = older_than.timestamp()
        excluded = {SALVAGE + job_id for job_id in exclude}
        expired = {
            name: sha
            for date, sha, name in rows
            # Only a commit has a date. A ref to anything else holds no work.
            if int(date or 0) < limit and name not in excluded
        }
        # The sha makes git refuse the deletion if work was added since the listing.
        commands = "".join(f"delete {name} {sha}\n" for name, sha in expired.items())
        data = encode(commands)
        await self._git.run("update-ref", "--no-deref", "--stdin", at=mirror, stdin=data)
        return sorted(expired)


def _delete_older(directory: Path, older_than: datetime) -> None:
    for entry in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if entry.lstat().st_mtime < older_than.timestamp():
                delete_tree(entry)
