"""Telling the store what an ended job has left, so that every machine and user can have it."""

from __future__ import annotations

from domain.job_details import KeptWork
from domain.jobs import Job, JobStatus, JobType
from domain.timestamps import utc_now
from host.job_progress import Progress
from store.protocol import Store
from workspace.git.file_names import join_paths
from workspace.inspection.submodule_rescue import RescuedSubmodules
from workspace.salvage.salvage import Salvaged

_KEPT = "The work is kept."
_AS_PATCH = " GET /jobs/{job_id}/patch gives it."
_PUBLISHED_LATER = (
    ' POST /jobs/{job_id}/retry with {{"from": "publish"}} publishes it without running Claude.'
)
_PLACES = (
    "Submodules have changes or commits that their own repositories do not have, or could not be "
    "compared with them: {paths}. They are kept on {host} for KEEP_WORK_DAYS: their files in "
    "{files}, and their git directories in {git_dirs}."
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

        What a completed job left beside its pull request is no undelivered work. A machine that
        was lost does not put its part of the work in the place of what its successor has recorded.
        """
        details = await self._store.get_job(job_id)
        if details is None or details.job.status is JobStatus.COMPLETED:
            return
        is_late = details.job.host != self._host_id
        if is_late and await self._store.kept_work(job_id) is not None:
            return
        await self._store.keep_work(
            KeptWork(job_id, work.base_sha, work.head_sha, self._host_id, work.patch, utc_now())
        )
        text = _words(details.job, work).format(job_id=job_id)
        await self._progress.say(job_id, text, once=("kept", work.head_sha))

    def is_elsewhere(self, work: KeptWork) -> bool:
        """Tell whether another machine alone is known to have the work."""
        return work.patch is None and work.host != self._host_id

    async def tell(self, job_id: str, spared: RescuedSubmodules) -> None:
        """Say in a job's transcript where its work in submodules is. Repeatable."""
        if await self._store.get_job(job_id) is None:
            return
        text = _PLACES.format(
            paths=join_paths(spared.paths),
            host=self._host_id,
            files=spared.files,
            git_dirs=spared.git_dirs,
        )
        # After a kill in between it may look as if other submodules had work.
        await self._progress.say(job_id, text, once=("spared", self._host_id))


def _words(job: Job, work: Salvaged) -> str:
    """Return what can be done with the work; a patch may be too long, and tasks publish nothing."""
    by_patch = _AS_PATCH if work.patch is not None else ""
    later = _PUBLISHED_LATER if job.job_type is JobType.CODE else ""
    return _KEPT + by_patch + later
