"""Taking worktrees off the disk, with what they hold kept first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

from domain.errors import OrchestratorError
from workspace.git.errors import explained
from workspace.git.runner import NETWORK_SECONDS
from workspace.inspection.submodule_rescue import RescuedSubmodules
from workspace.lifecycle.worktrees import Worktrees
from workspace.salvage.salvage import Salvage, Salvaged
from workspace.worktree.deletion import delete_tree
from workspace.worktree.worktree import RECORD_SUFFIX, REPOSITORY_SUFFIX

Record = Callable[[str, Salvaged], Awaitable[None]]
"""Writes down what is kept of a job, by its id, where more than this machine can see it."""

Tell = Callable[[str, RescuedSubmodules], Awaitable[None]]
"""Tells the owner of a job, by its id, where the work in its submodules is about to be moved."""

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

    async def remove(
        self,
        owner: str,
        name: str,
        job_id: str,
        record: Record | None = None,
        tell: Tell | None = None,
        *,
        include_pushed: bool = False,
    ) -> Salvaged | None:
        """Keep a job's work and remove its worktree; none being there is fine. Repeatable.

        Claude must have ended.

        Args:
            owner: of the repository.
            name: of the repository.
            job_id: the job.
            record: is called with the kept work, if there is any, before the worktree goes. What it
                raises leaves the worktree where it is.
            tell: is called, in the same way, when submodules have work in them. They are moved
                aside, and forgotten when kept work is.
            include_pushed: whether to keep also what was pushed.

        Returns:
            The kept work; None when there was nothing to keep.

        Raises:
            JobFailure: the work could not be kept, so the worktree is still there.
        """
        blank = self._worktrees.at(owner, name, job_id)
        async with self._mirrors.locks.hold(blank.lock_file):
            await self._mirrors.settle(self._mirrors.mirror(owner, name))
            # Without a record it was never complete, so nobody has worked in it.
            worktree = self._worktrees.recorded(owner, name, job_id)
            spared = None
            if worktree is not None and (worktree.path.is_dir() or worktree.git_dir.is_dir()):
                await self._salvage.keep_locked(worktree, include_pushed=include_pushed)
                spared = await self._worktrees.submodules_to_rescue(worktree)
            kept = await self._salvage.kept(owner, name, job_id)
            if kept is not None and record is not None:
                await record(job_id, kept)
            if spared is not None and tell is not None:
                await tell(job_id, spared)
            with explained(self._mirrors.credentials, "Removing the worktree"):
                await self._worktrees.discard(worktree or blank, spared)
            self._mirrors.locks.forget(blank.lock_file)
        return kept

    async def sweep(
        self,
        is_needed: Callable[[str], Awaitable[bool]],
        record: Record | None = None,
        tell: Tell | None = None,
    ) -> list[str]:
        """Remove every worktree whose job does not need it any more, and all leftovers.

        A worktree whose work cannot be kept or recorded stays, with a warning.

        Args:
            is_needed: tells, by job id, whether a job is live or still being cleaned up. It is
                asked just before the removal, so jobs that begin meanwhile are safe.
            record: as for `remove`.
            tell: as for `remove`.

        Returns:
            The ids of the jobs whose worktrees were removed.
        """
        removed = []
        for owner, name, job_id in await asyncio.to_thread(lambda: list(self._on_disk())):
            if await is_needed(job_id):
                continue
            try:
                await self.remove(owner, name, job_id, record, tell, include_pushed=True)
            except (OrchestratorError, OSError) as error:
                _log.warning("The worktree of job %s was not removed: %s", job_id, error)
            else:
                removed.append(job_id)
        await asyncio.to_thread(self._delete_leftovers)
        return removed

    def _on_disk(self) -> Iterator[tuple[str, str, str]]:
        found = set()
        for entry in self._worktrees.root.glob("[!.]*/*/*"):
            if entry.is_dir() or entry.name.endswith(RECORD_SUFFIX):
                job_id = entry.name.removesuffix(RECORD_SUFFIX).removesuffix(REPOSITORY_SUFFIX)
                found.add((entry.parent.parent.name, entry.parent.name, job_id))
        yield from sorted(found)

    def _delete_leftovers(self) -> None:
        for entry in self._worktrees.trash.glob("*"):
            delete_tree(entry)
        limit = time.time() - _STALE_SECONDS
        for entry in self._mirrors.scratch.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < limit:
                    delete_tree(entry)
