"""Telling the store what an ended job has left, so that every machine and user can have it."""

from __future__ import annotations

from activities.progress import Progress
from domain.clock import utc_now
from domain.jobs import JobStatus
from store.protocol import KeptWork, Store
from workspace.salvage import Salvaged

_KEPT = (
    "The work is kept: GET /jobs/{job_id}/patch gives it, and POST /jobs/{job_id}/retry with "
    '{{"from": "publish"}} publishes it without running Claude.'
)


class Keeping:
    """Records work that was kept on this machine.

    Args:
        store: where it is recorded.
        host_id: this machine.
    """

    def __init__(self, store: Store, host_id: str) -> None:
        self._store = store
        self._host_id = host_id
        self._progress = Progress(store)

    async def record(self, job_id: str, work: Salvaged) -> None:
        """Keep a job's work in the store, and say so in its transcript. Repeatable.

        What a completed job left beside its pull request is no undelivered work.
        """
        details = await self._store.get_job(job_id)
        if details is None or details.job.status is JobStatus.COMPLETED:
            return
        await self._store.keep_work(
            KeptWork(job_id, work.base_sha, work.head_sha, self._host_id, work.patch, utc_now())
        )
        await self._progress.say(job_id, _KEPT.format(job_id=job_id), once=("kept", work.head_sha))
