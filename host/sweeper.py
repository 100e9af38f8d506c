"""Removing what jobs that have ended left on this machine's disk."""

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import timedelta
from pathlib import Path

from domain.errors import OrchestratorError
from domain.names.ids import is_id
from host.retention import Retention
from host.salvage_records import Keeping
from host.slots.leases import Leases
from sandbox import files
from store.protocol import Store
from workspace.lifecycle.removal import Removal
from workspace.mirrors.gc import MirrorPacking

INTERVAL = timedelta(seconds=30)
"""Cleaning up is part of each job; this catches what a crash, a lost machine or a terminated
workflow left. Its work can be had by nobody until then, and a sweep reads one row for each worktree
on the disk."""

HOME_REMOVAL = timedelta(minutes=1)
"""How long one sweep works on one session home; the next sweep goes on with it."""

SWEEPS_A_DAY = timedelta(days=1) // INTERVAL

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps at the start of the worker and then now and again."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        removal: Removal,
        keeping: Keeping,
        retention: Retention,
        packing: MirrorPacking,
        sessions_dir: Path,
    ) -> None:
        self._store = store
        self._leases = leases
        self._removal = removal
        self._keeping = keeping
        self._retention = retention
        self._packing = packing
        self._sessions_dir = sessions_dir

    async def run_forever(self) -> None:
        """Sweep until cancelled; an outage is logged and the sweep tried again later."""
        for sweeps in itertools.count(1):
            try:
                await self.sweep()
                if sweeps % SWEEPS_A_DAY == 1:
                    await self._retention.expire()
                if sweeps % SWEEPS_A_DAY == 0:
                    await self._packing.pack_idle()
            except (OrchestratorError, OSError) as error:
                log.warning("The sweep waits: %s", error)
            await asyncio.sleep(INTERVAL.total_seconds())

    async def sweep(self) -> None:
        """Remove worktrees, their work kept first, and session homes of jobs that have ended."""
        keeping = self._keeping
        for job_id in await self._removal.sweep(self._is_needed, keeping.record, keeping.tell):
            log.info("Removed the worktree that job %s had left", job_id)
        for name in await asyncio.to_thread(files.names, self._sessions_dir):
            if is_id(name) and not await self._is_needed(name):
                await self._remove_home(name)

    async def _remove_home(self, job_id: str) -> None:
        try:
            await asyncio.to_thread(
                files.remove, self._sessions_dir, job_id, seconds=HOME_REMOVAL.total_seconds()
            )
        except OSError as error:
            log.warning("A part of job %s's session home is left for later: %s", job_id, error)

    async def _is_needed(self, job_id: str) -> bool:
        """Tell whether a directory must stay: its job has not ended, or it is of no job of ours.

        The workflow of a job may have ended while its Claude is still being stopped here.
        WORKTREES_DIR may hold what somebody else keeps there.
        """
        if job_id in self._leases.job_ids:
            return True
        details = await self._store.get_job(job_id)
        return details is None or details.job.is_live or details.job.phase is not None
