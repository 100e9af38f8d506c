"""POST /jobs: a branch of a repository has at most one live code job."""

from __future__ import annotations

import asyncio
from typing import Any

from domain.jobs import JobStatus
from tests.unit.api.calls import Api

BRANCH = "feature/x"


def body(client_id: str, **more: Any) -> dict[str, Any]:
    return {"clientId": client_id, "prompt": "x", "branchName": BRANCH, **more}


async def test_second_live_code_job_on_a_branch_is_refused(api: Api) -> None:
    client_id = await api.add_owner()
    first = await api.post("/jobs", body(client_id), 201)
    for status in (JobStatus.QUEUED, JobStatus.RUNNING):
        await api.change_job(first["id"], status=status)
        assert await api.refusal(409, "POST", "/jobs", body(client_id)) == (
            f"Job {first['id']} already works on the branch {BRANCH} of this repository. Wait for "
            "it to end, or use another branchName."
        )
    assert (await api.get("/jobs"))["total"] == 1


async def test_one_of_ten_concurrent_jobs_is_accepted(api: Api) -> None:
    client_id = await api.add_owner()
    answers = await asyncio.gather(*(api.call("POST", "/jobs", body(client_id)) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert (await api.get("/jobs"))["total"] == 1


async def test_branch_is_free_after_the_job_has_ended(api: Api) -> None:
    client_id = await api.add_owner()
    first = await api.post("/jobs", body(client_id), 201)
    await api.post(f"/jobs/{first['id']}/cancel")
    second = await api.post("/jobs", body(client_id), 201)
    for status in (JobStatus.COMPLETED, JobStatus.FAILED):
        await api.change_job(second["id"], status=status)
        second = await api.post("/jobs", body(client_id), 201)


async def test_branch_names_are_case_sensitive(api: Api) -> None:
    client_id = await api.add_owner()
    await api.post("/jobs", body(client_id), 201)
    await api.post("/jobs", body(client_id, branchName=BRANCH.upper()), 201)


async def test_same_branch_of_another_repository_is_free(api: Api) -> None:
    client_id = await api.add_owner("shop")
    other = await api.add_repository(client_id, "blog")
    await api.post("/jobs", body(client_id), 201)
    await api.post("/jobs", body(client_id, repositoryId=other["id"]), 201)
    await api.post("/jobs", body(await api.add_owner("shop")), 201)


async def test_task_jobs_hold_no_branch(api: Api) -> None:
    """Conversations only read, so any number can use a branch."""
    client_id = await api.add_owner()
    for job_type in ("task", "code", "task"):
        await api.post("/jobs", body(client_id, jobType=job_type), 201)
