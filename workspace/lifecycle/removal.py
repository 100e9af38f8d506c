"""Removes worktrees, after keeping the work in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

from domain.errors import OrchestratorError
from workspace.git.errors import as_job_failures
from workspace.git.runner import NETWORK_SECONDS
from workspace.inspection.submodule_rescue import RescuedSubmodules
from workspace.lifecycle.worktrees import Worktrees
from workspace.salvage.salvage import Salvage, Salvaged
from workspace.worktree.deletion import delete_tree
from workspace.worktree.worktree import RECORD_SUFFIX, REPOSITORY_SUFFIX

RecordSalvage = Callable[[str, Salvaged], Awaitable[None]]
"""Stores the kept work of a job, given the job's id, where other hosts can read it."""

ReportRescue = Callable[[str, RescuedSubmodules], Awaitable[None]]
"""Reports to the user, given the job's id, where the work in its submodules will be."""

_log = logging.getLogger(__name__)
# A scratch directory lives as long as a few git commands, each at most NETWORK_SECONDS.
_STALE_SECONDS = 3 * NETWORK_SECONDS


class Removal:
    """Removes the worktrees of jobs that have ended.

    Args:
        worktrees: the worktrees and their mirrors.
        salvage: keeps the work in them.
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
        record: RecordSalvage | None = None,
        report: ReportRescue | None = None,
        *,
        include_pushed: bool = False,
    ) -> Salvaged | None:
        """Keep the work of a job and remove its worktree, if there is one. Idempotent.

        Claude must have ended.

        Args:
            owner: of the repository.
            name: of the repository.
            job_id: the job.
            record: called with the kept work, if any, before the removal. If it raises an error,
                the worktree stays.
            report: called before the removal if submodules contain work. They are moved aside, and
                expire like kept work. If it raises an error, the worktree stays.
            include_pushed: whether to keep pushed commits too.

        Returns:
            The kept work; None if there was nothing to keep.

        Raises:
            JobFailure: the work could not be kept. The worktree stays.
        """
        placeholder = self._worktrees.at(owner, name, job_id)
        async with self._mirrors.locks.hold(placeholder.lock_file):
            await self._mirrors.finish_replacement(self._mirrors.mirror(owner, name))
            # A worktree without a record was never complete, so it contains no work.
            worktree = self._worktrees.recorded(owner, name, job_id)
            rescued = None
            if worktree is not None and (worktree.path.is_dir() or worktree.git_dir.is_dir()):
                await self._salvage.keep_locked(worktree, include_pushed=include_pushed)
                rescued = await self._worktrees.submodules_to_rescue(worktree)
            kept = await self._salvage.kept(owner, name, job_id)
            if kept is not None and record is not None:
                await record(job_id, kept)
            if rescued is not None and report is not None:
                await report(job_id, rescued)
            with as_job_failures(self._mirrors.credentials, "Removing the worktree"):
                await self._worktrees.discard(worktree or placeholder, rescued)
            self._mirrors.locks.forget(placeholder.lock_file)
        return kept

    async def sweep(
        self,
        is_needed: Callable[[str], Awaitable[bool]],
        record: RecordSalvage | None = None,
        report: ReportRescue | None = None,
    ) -> list[str]:
        """Remove all worktrees that no job needs any more, and leftovers of crashes.

        If the work of a worktree cannot be kept or recorded, it stays, and a warning is logged.

        Args:
            is_needed: returns whether a job, given its id, is live or being cleaned up. It is
                called right before each removal, so that a job that starts during the sweep is
                safe.
            record: as for `remove`.
            report: as for `remove`.

        Returns:
            The ids of the jobs whose worktrees were removed.
        """
        removed = []
        for owner, name, job_id in await asyncio.to_thread(lambda: list(self._on_disk())):
            if await is_needed(job_id):
                continue
            try:
                await self.remove(owner, name, job_id, record, report, include_pushed=True)
            except (OrchestratorError, OSError) as error:
                _log.warning("The worktree of job %s was not removed: %s", job_id, error)
            else:
                removed.append(job_id)
        await asyncio.to_thread(self._delete_leftovers)
        return removed

    def _on_disk(self) -> Iterator[tuple[str, str, str]]:
        jobs = set()
        for entry in self._worktrees.root.glob("[!.]*/*/*"):
            if entry.is_dir() or entry.name.endswith(RECORD_SUFFIX):
                job_id = entry.name.removesuffix(RECORD_SUFFIX).removesuffix(REPOSITORY_SUFFIX)
                jobs.add((entry.parent.parent.name, entry.parent.name, job_id))
        yield from sorted(jobs)

    def _delete_leftovers(self) -> None:
        for entry in self._worktrees.trash.glob("*"):
            delete_tree(entry)
        limit = time.time() - _STALE_SECONDS
        for entry in self._mirrors.scratch.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < limit:
                    delete_tree(entry)
