"""Remove the files that ended jobs left on this host."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

from domain.names.ids import is_id
from host.loops import for_each, run_every
from host.retention import Retention
from host.salvage_records import SalvageRecords
from host.slots.leases import Leases
from sandbox import files
from store.protocol import Store
from workspace.lifecycle.removal import Removal
from workspace.mirrors.gc import MirrorPacking

INTERVAL = timedelta(seconds=30)
"""Each job cleans up itself; a sweep handles crashes, lost hosts and terminated workflows. The work
of such a job is available only after a sweep. A sweep reads one row per worktree on the disk."""

HOME_REMOVAL = timedelta(minutes=1)
"""Time limit for the removal of one session home per sweep; the next sweep continues."""

DAILY = timedelta(days=1)
"""Retention is counted in days, and packing a mirror pays off only after many fetches."""

log = logging.getLogger(__name__)


class Sweeper:
    """Removes leftovers at the start of the worker and periodically."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        removal: Removal,
        salvage_records: SalvageRecords,
        retention: Retention,
        packing: MirrorPacking,
        sessions_dir: Path,
    ) -> None:
        self._store = store
        self._leases = leases
        self._removal = removal
        self._salvage_records = salvage_records
        self._retention = retention
        self._packing = packing
        self._sessions_dir = sessions_dir

    async def run_forever(self) -> None:
        """Sweep, expire and pack until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_every(INTERVAL, self.sweep, name="The sweep"))
            group.create_task(run_every(DAILY, self._retention.expire, name="The expiry"))
            # Delayed, because a worker that starts has more urgent work.
            group.create_task(
                run_every(DAILY, self._packing.pack_idle, name="Packing mirrors", delay=DAILY)
            )

    async def sweep(self) -> None:
        """Remove the worktrees and session homes of ended jobs; salvage undelivered work first."""
        records = self._salvage_records
        for job_id in await self._removal.sweep(self._is_needed, records.record, records.notify):
            log.info("Removed the worktree that job %s had left", job_id)
        names = await asyncio.to_thread(files.names, self._sessions_dir)
        await for_each(filter(is_id, names), self._remove_home, name="Removing a session home")

    async def _remove_home(self, job_id: str) -> None:
        if await self._is_needed(job_id):
            return
        await asyncio.to_thread(
            files.remove, self._sessions_dir, job_id, seconds=HOME_REMOVAL.total_seconds()
        )

    async def _is_needed(self, job_id: str) -> bool:
        """Return whether a directory must stay: its job has not ended, or is unknown."""
        # The workflow of a job can end while its Claude process is still being stopped here.
        if job_id in self._leases.job_ids:
            return True
        details = await self._store.get_job_state(job_id)
        # A directory of an unknown job may belong to another program.
        return details is None or details.job.is_live or details.job.phase is not None
