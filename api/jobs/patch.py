"""GET /jobs/:id/patch: the kept work of a job, which was not delivered."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Header
from pydantic import BaseModel
from starlette.responses import Response

from api.dependencies import Injected
from api.http.fields import Timestamp
from api.http.lookups import existing_job
from domain.errors import Conflict, NotFound, OrchestratorError
from domain.job_details import JobDetails, KeptWork
from domain.jobs import Job, JobState, JobStatus
from store.retry_chain import salvaged_work_of

PATCH_TYPE = "text/x-patch"

router = APIRouter(tags=["jobs"])


class KeptPatch(BaseModel):
    """The kept work of a job. `git apply` takes `patch` on the commit `base_sha`."""

    id: str
    base_sha: str
    head_sha: str
    branch_name: str
    patch: str
    created_at: Timestamp

    @classmethod
    def from_domain(cls, work: KeptWork, patch: str, branch_name: str) -> Self:
        """Return the model of kept work whose `patch` is stored."""
        return cls(
            id=work.job_id,
            base_sha=work.base_sha,
            head_sha=work.head_sha,
            branch_name=branch_name,
            patch=patch,
            created_at=work.created_at,
        )


@router.get(
    "/jobs/{job_id}/patch",
    response_model=KeptPatch,
    responses={
        200: {
            "content": {PATCH_TYPE: {"schema": {"type": "string"}}},
            "headers": {
                "X-Base-Commit": {
                    "description": "The commit that the patch applies to.",
                    "schema": {"type": "string"},
                }
            },
        },
    },
)
async def get_patch(
    job_id: str,
    dependencies: Injected,
    response: Response,
    accept: Annotated[str, Header()] = "*/*",
) -> KeptPatch | Response:
    """Get the undelivered work of an ended job as a patch for `git apply`.

    With `Accept: application/json` the answer is an object.
    """
    details = await existing_job(dependencies.store, job_id)
    job = details.job
    kept = None if job.is_live else await salvaged_work_of(dependencies.store, job)
    if kept is None or kept[0].id != job.id:
        raise _nothing_kept(job, kept[0] if kept else None)
    work = kept[1]
    if work.patch is None:
        raise NotFound(_too_large(work, details))
    headers = {"X-Base-Commit": work.base_sha, "Vary": "Accept"}
    if _wants_json(accept):
        response.headers.update(headers)
        return KeptPatch.from_domain(work, work.patch, job.branch_name)
    # Git skips all lines before the first `diff --git`.
    text = f"Job: {job.id}\nBase: {work.base_sha}\n\n{work.patch}"
    return Response(text, headers=headers, media_type=PATCH_TYPE)


def _wants_json(accept: str) -> bool:
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "application/json" in kinds and PATCH_TYPE not in kinds


def _nothing_kept(job: Job, producer: JobState | None) -> OrchestratorError:
    """Return the error for a job without kept work of its own.

    Args:
        job: the job of the request.
        producer: the job that produced the work which `job` was to publish, if any.
    """
    if job.is_live:
        return Conflict("The job has not ended yet. Try again when it has.")
    if job.phase is not None:
        return Conflict("The job is still cleaning up. Try again in a moment.")
    if job.status is not JobStatus.COMPLETED and producer is not None:
        return NotFound(
            f"No work is kept for this job, because it was to publish the work of job "
            f"{producer.id}. That work is still kept: get it from GET /jobs/{producer.id}/patch, "
            "or retry this job with `from` set to publish."
        )
    if job.status is not JobStatus.COMPLETED:
        return NotFound(
            "No undelivered work is kept for this job: it produced none, its host has not saved "
            "it yet, or it has expired (KEEP_WORK_DAYS). Retry the job."
        )
    if job.pr_url is None:
        return NotFound("The job completed without changes, so it has no undelivered work.")
    return NotFound(f"The job delivered all its work in the pull request {job.pr_url}.")


def _too_large(work: KeptWork, details: JobDetails) -> str:
    repository = details.repository.full_name if details.repository else "its repository"
    return (
        f"The patch is too large to be stored. The work is on the host {work.host}, in the "
        f"mirror of {repository} in REPOS_DIR, as refs/orchestrator/salvage/{work.job_id}. Run "
        f"`git diff --binary {work.base_sha} {work.head_sha}` there."
    )
