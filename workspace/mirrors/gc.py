"""Packing of mirrors, which git must not do by itself while jobs borrow their objects."""

from __future__ import annotations

import logging
from pathlib import Path

from workspace.git.runner import TREE_SECONDS, GitError, GitLocation
from workspace.lifecycle.worktrees import Worktrees

_log = logging.getLogger(__name__)
# git's own limits for `gc --auto` (git-config(1), gc.auto and gc.autoPackLimit).
_MAX_LOOSE = 6700
_MAX_PACKS = 50


class Upkeep:
    """Keeps mirrors fast and small.

    Args:
        worktrees: the worktrees, and through them the mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git

    async def pack_idle(self) -> list[Path]:
        """Run `git gc` on every mirror that needs it and whose objects no job borrows.

        What nothing leads to is deleted when it is two weeks old. Jobs of that repository wait
        meanwhile. A failure is logged: it does no harm.

        Returns:
            The mirrors that were packed.
        """
        packed = []
        for mirror in self._mirrors.on_disk():
            try:
                async with self._mirrors.lock(mirror):
                    if await self._needs_it(mirror):
                        at = GitLocation(mirror)
                        await self._git.run("gc", "--quiet", at=at, timeout=TREE_SECONDS)
                        packed.append(mirror)
            except (GitError, OSError) as error:
                _log.warning("The mirror %s was not packed: %s", mirror, error)
        return packed

    async def _needs_it(self, mirror: Path) -> bool:
        if self._worktrees.mirror_in_use(mirror):
            return False
        counted = await self._git.run("count-objects", "-v", at=GitLocation(mirror))
        rows = dict(line.split(": ", 1) for line in counted.splitlines())
        return int(rows["count"]) > _MAX_LOOSE or int(rows["packs"]) > _MAX_PACKS
