"""Store the salvage of a job, so that every host and user can access it."""

from __future__ import annotations

from domain.job_details import KeptWork
from domain.jobs import JobState, JobStatus, JobType
from domain.timestamps import utc_now
from host.job_progress import Progress
from store.protocol import Store
from workspace.git.text import join_paths
from workspace.inspection.submodule_rescue import RescuedSubmodules
from workspace.salvage.salvage import Salvaged

_KEPT = "The work is kept."
_AS_PATCH = " GET /jobs/{job_id}/patch returns it."
_PUBLISHED_LATER = (
    ' POST /jobs/{job_id}/retry with {{"from": "publish"}} publishes it without running Claude.'
)
_SUBMODULES = (
    "These submodules contain unpushed changes or commits (or could not be checked): {paths}. They "
    "are kept on {host} for KEEP_WORK_DAYS: the files in {files}, and the git directories in "
    "{git_dirs}."
)


class SalvageRecords:
    """Records the salvage on this host in the store."""

    def __init__(self, store: Store, host_id: str) -> None:
        self._store = store
        self._host_id = host_id
        self._progress = Progress(store)

    async def record(self, job_id: str, work: Salvaged) -> None:
        """Store the salvage of a job, and add a message about it. Idempotent."""
        details = await self._store.get_job_state(job_id)
        # The rest of a completed job is not undelivered work: its result is in the pull request.
        if details is None or details.job.status is JobStatus.COMPLETED:
            return
        # A host that lost the job must not replace the newer salvage of the next host.
        has_moved = details.job.host != self._host_id
        if has_moved and await self._store.kept_work(job_id) is not None:
            return
        await self._store.keep_work(
            KeptWork(job_id, work.base_sha, work.head_sha, self._host_id, work.patch, utc_now())
        )
        text = _notice(details.job, work).format(job_id=job_id)
        await self._progress.notify(job_id, text, once=("kept", work.head_sha))

    def is_elsewhere(self, work: KeptWork) -> bool:
        """Return whether only another host has the work."""
        return work.patch is None and work.host != self._host_id

    async def notify(self, job_id: str, rescued: RescuedSubmodules) -> None:
        """Add a message about the location of work in submodules. Idempotent."""
        if await self._store.get_job_state(job_id) is None:
            return
        text = _SUBMODULES.format(
            paths=join_paths(rescued.paths),
            host=self._host_id,
            files=rescued.files,
            git_dirs=rescued.git_dirs,
        )
        # One message per host: a repeated call after a crash may find other submodules.
        await self._progress.notify(job_id, text, once=("spared", self._host_id))


def _notice(job: JobState, work: Salvaged) -> str:
    # A very long patch is not stored, and a task job has nothing to publish.
    by_patch = _AS_PATCH if work.patch is not None else ""
    later = _PUBLISHED_LATER if job.job_type is JobType.CODE else ""
    return _KEPT + by_patch + later
