"""Pack mirrors when no job borrows their objects. Automatic gc of git is off."""

from __future__ import annotations

import logging
from pathlib import Path

from workspace.git.runner import TREE_SECONDS, GitError, GitLocation
from workspace.lifecycle.worktrees import Worktrees

_log = logging.getLogger(__name__)
# The defaults of `gc --auto` (git-config(1), gc.auto and gc.autoPackLimit).
_MAX_LOOSE = 6700
_MAX_PACKS = 50


class MirrorPacking:
    """Packs the mirrors of this host.

    Args:
        worktrees: the worktrees and their mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git

    async def pack_idle(self) -> list[Path]:
        """Run `git gc` on every mirror that needs it and whose objects no job borrows.

        Unreachable objects are deleted after two weeks. Jobs of the repository wait until `git gc`
        ends. Failures are harmless and only logged.

        Returns:
            The paths of the packed mirrors.
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
