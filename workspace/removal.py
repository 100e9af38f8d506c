"""Taking worktrees off the disk, with what they hold kept first."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from domain.errors import JobFailure
from workspace.command import NETWORK_SECONDS
from workspace.refusals import explained
from workspace.salvage import Salvage
from workspace.worktree import RECORD_SUFFIX, Worktree
from workspace.worktrees import Worktrees

_log = logging.getLogger(__name__)
# No command lives longer than NETWORK_SECONDS, and a mirror is made with a few of them.
_STALE_SECONDS = 3 * NETWORK_SECONDS


class Removal:
    """Removes the worktrees of jobs that have ended.

    Args:
        worktrees: the worktrees.
        salvage: keeps what is in them.
    """

    def __init__(self, worktrees: Worktrees, salvage: Salvage) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._salvage = salvage

    async def remove(self, owner: str, name: str, job_id: str) -> str | None:
        """Keep a job's work and remove its worktree; none being there is fine. Repeatable.

        Claude must have ended.

        Returns:
            The commit that keeps the work; None when there was nothing to keep.

        Raises:
            JobFailure: the work could not be kept, so the worktree is still there.
        """
        blank = self._worktrees.at(owner, name, job_id)
        async with self._mirrors.locks.hold(blank.lock_file):
            # Without a record it was never complete, so nobody has worked in it.
            worktree = self._worktrees.recorded(owner, name, job_id)
            if worktree is not None:
                await self._keep(worktree)
            with explained(self._mirrors.credentials, "Removing the worktree"):
                await self._worktrees.discard(worktree or blank)
            self._mirrors.locks.forget(blank.lock_file)
        return await self._salvage.kept(owner, name, job_id)

    async def sweep(self, live_job_ids: Collection[str]) -> list[str]:
        """Remove every worktree that belongs to no live job, and all leftovers.

        Run it when the machine starts. A worktree whose work cannot be kept stays, with a warning.

        Returns:
            The ids of the jobs whose worktrees were removed.
        """
        removed = []
        for owner, name, job_id in await asyncio.to_thread(lambda: list(self._on_disk())):
            if job_id in live_job_ids:
                continue
            try:
                await self.remove(owner, name, job_id)
            except (JobFailure, OSError) as error:
                _log.warning("The worktree of job %s was not removed: %s", job_id, error)
            else:
                removed.append(job_id)
        await asyncio.to_thread(self._delete_leftovers)
        return removed

    async def _keep(self, worktree: Worktree) -> None:
        if (worktree.git_dir / "HEAD").is_file():
            await self._salvage.keep_held(worktree)
        elif worktree.path.is_dir():
            orphaned = self._worktrees.root / ".orphaned"
            orphaned.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = Path(tempfile.mkdtemp(dir=orphaned, prefix=f"{worktree.job_id}-"))
            worktree.path.rename(target / worktree.job_id)
            _log.warning(
                "Git no longer knows the worktree of job %s; its files are kept in %s",
                worktree.job_id,
                target,
            )

    def _on_disk(self) -> Iterator[tuple[str, str, str]]:
        found = set()
        for entry in self._worktrees.root.glob("[!.]*/*/*"):
            if entry.is_dir() or entry.name.endswith(RECORD_SUFFIX):
                job_id = entry.name.removesuffix(RECORD_SUFFIX)
                found.add((entry.parent.parent.name, entry.parent.name, job_id))
        yield from sorted(found)

    def _delete_leftovers(self) -> None:
        shutil.rmtree(self._worktrees.trash, ignore_errors=True)
        limit = time.time() - _STALE_SECONDS
        for entry in self._mirrors.scratch.glob("*"):
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True)
