"""POST /jobs/:id/retry."""

from __future__ import annotations

import re

import pytest
from temporalio.client import Client as TemporalClient

from domain.jobs import JobStatus, JobType
from domain.names.ids import new_id
from tests.unit.api.calls import Api

SAME_FIELDS = (
    "client_id",
    "feature_id",
    "repository_id",
    "created_by_team_member_id",
    "prompt",
    "title",
    "job_type",
    "priority",
)


async def test_secret_is_required(api: Api) -> None:
    await api.needs_secret("POST", f"/jobs/{new_id()}/retry")


@pytest.mark.parametrize("job_type", JobType)
@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
async def test_retry_has_the_request_of_the_original(
    api: Api, parked: TemporalClient, job_type: JobType, status: JobStatus
) -> None:
    client_id = await api.add_client()
    await api.add_repository(client_id, "first")
    second = await api.add_repository(client_id, "second")
    original = await api.seed_job(
        client_id,
        repository_id=second["id"],
        job_type=job_type,
        status=status,
        feature_id=api.add_feature(client_id),
        created_by_team_member_id=api.add_team_member(),
        title="Größe",
        priority=5,
        prompt="  do it\n",
        branch_name="feature/x",
        phase=None,
        error="It broke.",
    )
    answer = await api.post(f"/jobs/{original.id}/retry", expect=201)
    assert set(answer) == {"id", "originalJobId", "status", "branchName"}
    assert (answer["originalJobId"], answer["status"]) == (original.id, "queued")
    assert re.fullmatch(r"feature/x-retry-\d{13}", answer["branchName"])
    old, new = await api.get(f"/jobs/{original.id}"), await api.get(f"/jobs/{answer['id']}")
    assert {key: new[key] for key in SAME_FIELDS} == {key: old[key] for key in SAME_FIELDS}
    assert (new["retry_of"], new["branch_name"]) == (original.id, answer["branchName"])
    assert (new["status"], new["phase"], new["error"]) == ("queued", "waiting_for_slot", None)
    assert old["status"] == status
    described = await parked.get_workflow_handle(f"job-{new['id']}").describe()
    assert described.workflow_type == {"code": "CodeJob", "task": "TaskJob"}[job_type]


async def test_retry_suffix_is_replaced(api: Api) -> None:
    client_id = await api.add_owner()
    job = await api.seed_job(
        client_id, status=JobStatus.FAILED, branch_name="x-retry-1767000000000"
    )
    answer = await api.post(f"/jobs/{job.id}/retry", expect=201)
    assert re.fullmatch(r"x-retry-\d{13}", answer["branchName"])
    assert answer["branchName"] != job.branch_name


async def test_retry_of_a_retry(api: Api) -> None:
    job = await api.seed_job(await api.add_owner(), status=JobStatus.CANCELLED, branch_name="x")
    job_id = job.id
    for _ in range(3):
        answer = await api.post(f"/jobs/{job_id}/retry", expect=201)
        assert (answer["originalJobId"], answer["branchName"].count("retry")) == (job_id, 1)
        job_id = answer["id"]
        await api.post(f"/jobs/{job_id}/cancel")
    assert (await api.get("/jobs"))["total"] == 4


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED])
async def test_job_that_did_not_fail_is_refused(api: Api, status: JobStatus) -> None:
    job = await api.seed_job(await api.add_owner(), status=status)
    assert await api.refusal(400, "POST", f"/jobs/{job.id}/retry") == (
        f"Only failed and cancelled jobs can be retried; this one is {status}."
    )
    assert (await api.get("/jobs"))["total"] == 1


async def test_job_without_a_repository_is_refused(api: Api) -> None:
    """The earlier product has left such jobs."""
    original = await api.seed_job(
        await api.add_owner(), status=JobStatus.FAILED, phase=None, repository_id=None
    )
    assert await api.refusal(400, "POST", f"/jobs/{original.id}/retry") == (
        "The repository of this job was removed, so the job cannot be retried. Post a new job "
        "for another repository."
    )
