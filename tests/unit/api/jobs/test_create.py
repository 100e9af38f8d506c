"""POST /jobs: client, repository and other fields."""

from __future__ import annotations

import re
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.names.ids import is_id, new_id
from tests.unit.api.calls import Api, later

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CODE = {"prompt": "Add a logout button", "branchName": "feature/logout"}


async def test_secret_is_required(api: Api) -> None:
    await api.needs_secret("POST", "/jobs")


async def test_code_job(api: Api, parked: TemporalClient) -> None:
    client_id = await api.add_owner()
    body = {**CODE, "clientId": client_id, "jobType": "code", "title": "Logout"}
    answer = await api.post("/jobs", body, 201)
    assert set(answer) == {"id", "status", "position", "branchName", "createdAt"}
    assert is_id(answer["id"])
    assert TIME.fullmatch(answer["createdAt"])
    shown = (answer["status"], answer["position"], answer["branchName"])
    assert shown == ("queued", 1, "feature/logout")
    job = await api.get(f"/jobs/{answer['id']}")
    assert job["created_at"] == answer["createdAt"]
    assert (job["client_id"], job["job_type"], job["title"]) == (client_id, "code", "Logout")
    assert (job["status"], job["phase"]) == ("queued", "waiting_for_slot")
    described = await parked.get_workflow_handle(f"job-{answer['id']}").describe()
    assert described.workflow_type == "CodeJob"


async def test_task_job(api: Api, parked: TemporalClient) -> None:
    client_id = await api.add_owner()
    body = {"clientId": client_id, "prompt": "Why is it slow?", "jobType": "task"}
    answer = await api.post("/jobs", body, 201)
    assert re.fullmatch(r"task-\d{13}", answer["branchName"])
    assert (await api.get(f"/jobs/{answer['id']}"))["job_type"] == "task"
    described = await parked.get_workflow_handle(f"job-{answer['id']}").describe()
    assert described.workflow_type == "TaskJob"


async def test_default_type_is_code(api: Api) -> None:
    client_id = await api.add_owner()
    for branch, job_type in (("a", {}), ("b", {"jobType": None})):
        job = await api.add_job(client_id, branchName=branch, **job_type)
        assert (await api.get(f"/jobs/{job['id']}"))["job_type"] == "code"


async def test_task_job_with_a_branch_name(api: Api) -> None:
    job = await api.add_job(await api.add_owner(), jobType="task", branchName="research/x")
    assert job["branchName"] == "research/x"


async def test_positions_start_at_one(api: Api) -> None:
    client_id = await api.add_owner()
    assert [(await api.add_job(client_id))["position"] for _ in range(3)] == [1, 2, 3]


async def test_position_counts_only_queued_jobs(api: Api) -> None:
    client_id = await api.add_owner()
    for status, phase in (("running", "working"), ("completed", None)):
        await api.seed_job(client_id, status=status, phase=phase, created_at=later(0))
    assert (await api.add_job(client_id))["position"] == 1


async def test_every_field_is_stored(api: Api) -> None:
    client_id = await api.add_client()
    await api.add_repository(client_id, "first")
    second = await api.add_repository(client_id, "second")
    feature, member = api.add_feature(client_id, "Login"), api.add_team_member()
    body = {
        **CODE,
        "clientId": client_id.upper(),
        "repositoryId": second["id"].upper(),
        "featureId": feature.upper(),
        "createdByTeamMemberId": member.upper(),
        "title": "Größe 🚀",
        "branchName": "féature/größe-🚀",
    }
    job = await api.get(f"/jobs/{(await api.post('/jobs', body, 201))['id']}")
    assert job["client"] == {"id": client_id, "name": "Acme"}
    assert (job["client_id"], job["repository_id"]) == (client_id, second["id"])
    assert job["repository"]["repo_name"] == "second"
    assert job["feature"] == {"id": feature, "title": "Login"}
    assert job["created_by_team_member_id"] == member
    assert (job["title"], job["branch_name"]) == ("Größe 🚀", "féature/größe-🚀")


async def test_unknown_fields_are_ignored(api: Api) -> None:
    client_id = await api.add_owner()
    job = await api.add_job(
        client_id, status="completed", id=new_id(), lease=7, timeout=5, nested={"a": [1]}
    )
    shown = await api.get(f"/jobs/{job['id']}")
    assert (shown["status"], shown["lease"]) == ("queued", 0)


class TestClientAndRepository:
    async def test_repository_by_github_name(self, api: Api) -> None:
        client_id = await api.add_client()
        repository = await api.add_repository(client_id)
        for branch, org, repo in (("a", "acme", "shop"), ("b", "ACME", "Shop")):
            body = {"prompt": "x", "branchName": branch, "githubOrg": org, "githubRepo": repo}
            job = await api.get(f"/jobs/{(await api.post('/jobs', body, 201))['id']}")
            assert (job["client_id"], job["repository_id"]) == (client_id, repository["id"])

    async def test_oldest_repository_with_the_github_name_is_used(self, api: Api) -> None:
        first = await api.add_owner()
        await api.add_owner()
        body = {**CODE, "githubOrg": "acme", "githubRepo": "shop"}
        job = await api.post("/jobs", body, 201)
        assert (await api.get(f"/jobs/{job['id']}"))["client_id"] == first

    async def test_client_id_takes_precedence_over_github_name(self, api: Api) -> None:
        await api.add_owner("shop")
        client_id = await api.add_owner("blog")
        body = {**CODE, "clientId": client_id, "githubOrg": "acme", "githubRepo": "shop"}
        job = await api.get(f"/jobs/{(await api.post('/jobs', body, 201))['id']}")
        assert (job["client_id"], job["repository"]["repo_name"]) == (client_id, "blog")

    async def test_github_name_is_not_checked_if_there_is_a_client_id(self, api: Api) -> None:
        body = {**CODE, "clientId": await api.add_owner(), "githubOrg": "../.."}
        await api.post("/jobs", body, 201)

    async def test_default_repository_is_the_oldest(self, api: Api) -> None:
        client_id = await api.add_client()
        first = await api.add_repository(client_id, "zoo")
        await api.add_repository(client_id, "app")
        job = await api.add_job(client_id)
        assert (await api.get(f"/jobs/{job['id']}"))["repository_id"] == first["id"]

    @pytest.mark.parametrize(
        "names", [{}, {"githubOrg": "acme"}, {"githubRepo": "shop"}, {"clientId": None}]
    )
    async def test_missing_client_and_repository(self, api: Api, names: dict[str, Any]) -> None:
        reason = await api.refusal(400, "POST", "/jobs", {**CODE, **names})
        assert reason == "clientId, or githubOrg and githubRepo, are required."

    async def test_unknown_repository(self, api: Api) -> None:
        body = {**CODE, "githubOrg": "acme", "githubRepo": "nope"}
        assert await api.refusal(400, "POST", "/jobs", body) == (
            "Repository acme/nope not found. Add it with POST /clients/:id/repository first."
        )

    async def test_invalid_github_name(self, api: Api) -> None:
        body = {**CODE, "githubOrg": "a b", "githubRepo": "nope"}
        assert "is not a GitHub owner name" in await api.refusal(400, "POST", "/jobs", body)

    async def test_unknown_client(self, api: Api) -> None:
        unknown = new_id()
        reason = await api.refusal(400, "POST", "/jobs", {**CODE, "clientId": unknown})
        assert reason == f"clientId {unknown} is not the id of a client."

    async def test_client_without_a_repository(self, api: Api) -> None:
        body = {**CODE, "clientId": await api.add_client()}
        assert await api.refusal(400, "POST", "/jobs", body) == (
            "The client has no repository. Add one with POST /clients/:id/repository first."
        )

    async def test_repository_of_another_client(self, api: Api) -> None:
        client_id = await api.add_owner()
        foreign = await api.add_repository(await api.add_client(), "blog")
        for repository_id in (foreign["id"], new_id()):
            body = {**CODE, "clientId": client_id, "repositoryId": repository_id}
            reason = await api.refusal(400, "POST", "/jobs", body)
            assert reason == (
                f"repositoryId {repository_id} is not the id of a repository of this client."
            )

    @pytest.mark.parametrize(
        ("field", "kind"),
        [("featureId", "feature"), ("createdByTeamMemberId", "team member")],
    )
    async def test_unknown_feature_or_team_member(self, api: Api, field: str, kind: str) -> None:
        unknown = new_id()
        body = {**CODE, "clientId": await api.add_owner(), field: unknown}
        reason = await api.refusal(400, "POST", "/jobs", body)
        assert reason == f"{field} {unknown} is not the id of a {kind}."

    @pytest.mark.parametrize(
        "field", ["clientId", "repositoryId", "featureId", "createdByTeamMemberId"]
    )
    @pytest.mark.parametrize("value", ["", "x", "9b2f7a0c5a074f5e9d0e3f6f5a0b1c2d", "\0"])
    async def test_malformed_id(self, api: Api, field: str, value: str) -> None:
        reason = await api.refusal(400, "POST", "/jobs", {**CODE, field: value})
        assert reason == f"{field}: must be a UUID."

    async def test_refused_request_stores_nothing(self, api: Api) -> None:
        client_id = await api.add_owner()
        await api.refusal(400, "POST", "/jobs", {"clientId": client_id, "prompt": "x"})
        await api.refusal(400, "POST", "/jobs", {**CODE, "clientId": client_id, "featureId": "x"})
        assert await api.get("/jobs") == {"jobs": [], "total": 0}
