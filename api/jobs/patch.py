"""GET /jobs/:id/patch: the work that an ended job did not deliver."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import JSONResponse, Response

from api.dependencies import Parts
from api.http.lookups import existing_job
from api.jobs.schemas import Error, KeptPatch
from api.jobs.views import kept_patch_view
from domain.errors import Conflict, NotFound, OrchestratorError
from domain.job_details import JobDetails, KeptWork
from domain.jobs import Job, JobState, JobStatus
from store.retry_chain import salvaged_work_of

PATCH_TYPE = "text/x-patch"

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/patch",
    response_model=KeptPatch,
    responses={
        200: {
            "content": {PATCH_TYPE: {"schema": {"type": "string"}}},
            "headers": {
                "X-Base-Commit": {
                    "description": "The commit the patch is for.",
                    "schema": {"type": "string"},
                }
            },
        },
        409: {"model": Error},
    },
)
async def get_patch(
    job_id: str, parts: Parts, accept: Annotated[str, Header()] = "*/*"
) -> Response:
    """Get the work that an ended job did not deliver, as `git apply` takes it.

    With `Accept: application/json` it is an object.
    """
    details = await existing_job(parts.store, job_id)
    job = details.job
    left = None if job.is_live else await salvaged_work_of(parts.store, job)
    if left is None or left[0].id != job.id:
        raise _nothing_kept(job, left[0] if left else None)
    work = left[1]
    if work.patch is None:
        raise NotFound(_where_it_is(work, details))
    headers = {"X-Base-Commit": work.base_sha, "Vary": "Accept"}
    if _wants_json(accept):
        return JSONResponse(kept_patch_view(work, work.patch, job.branch_name), headers=headers)
    # Git skips what stands before the first `diff --git`.
    text = f"Job: {job.id}\nBase: {work.base_sha}\n\n{work.patch}"
    return Response(text, headers=headers, media_type=PATCH_TYPE)


def _wants_json(accept: str) -> bool:
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "application/json" in kinds and PATCH_TYPE not in kinds


def _nothing_kept(job: Job, keeper: JobState | None) -> OrchestratorError:
    """Say why nothing is kept of a job; `keeper` left the work that the job was to publish."""
    if job.is_live:
        return Conflict("The job has not ended yet. Ask again when it has.")
    if job.phase is not None:
        return Conflict("The job is still cleaning up. Ask again in a moment.")
    if job.status is not JobStatus.COMPLETED and keeper is not None:
        return NotFound(
            f"Nothing is kept under this job, which was to publish the work of job {keeper.id}. "
            f"That is still kept: see GET /jobs/{keeper.id}/patch, or retry this job with `from` "
            "set to publish."
        )
    if job.status is not JobStatus.COMPLETED:
        return NotFound(
            "No undelivered work of this job is kept: it left none, its machine could not keep it "
            "yet, or it is longer ago than work is kept. Retry the job to have it done again."
        )
    if job.pr_url is None:
        return NotFound("The job completed without changing anything, so it left no work.")
    return NotFound(f"The job delivered all its work, with the pull request {job.pr_url}.")


def _where_it_is(work: KeptWork, details: JobDetails) -> str:
    repository = details.repository.full_name if details.repository else "its repository"
    return (
        f"The patch is too long to be stored. The work is on the machine {work.host}, in the "
        f"mirror of {repository} in REPOS_DIR, as refs/orchestrator/salvage/{work.job_id}: run "
        f"`git diff --binary {work.base_sha} {work.head_sha}` there."
    )
