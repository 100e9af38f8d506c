"""GET /jobs: filters, pages and order."""

from __future__ import annotations

from typing import Any

import pytest

from domain.jobs import JobStatus
from domain.names.ids import new_id
from tests.unit.api.calls import Api, later

ROW_KEYS = {
    "id", "client_id", "feature_id", "repository_id", "created_by_team_member_id", "retry_of",
    "retry_from", "title", "job_type", "status", "phase", "outcome", "failure_code", "error",
    "failure", "prompt", "result", "branch_name", "base_branch", "draft", "labels", "reviewers",
    "base_sha", "head_sha", "pr_url", "pr_number", "files_changed", "code_branch_id",
    "code_pull_request_id", "host", "worktree_path", "pid", "lease", "attempt", "session_id",
    "model", "requested_model", "max_turns", "max_budget_usd", "timeout_minutes", "exit_code",
    "num_turns", "total_cost_usd", "cost", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_creation_tokens", "claude_seconds", "priority", "created_at", "queued_at",
    "started_at", "resumes_at", "completed_at", "updated_at",
}  # fmt: skip
EMBEDDED = {"client", "feature", "repository"}
STATUSES = "queued, running, completed, failed, cancelled"


async def ids(api: Api, **query: Any) -> list[str]:
    return [job["id"] for job in (await api.get("/jobs", **query))["jobs"]]


async def seed_one_of_each(api: Api) -> dict[str, str]:
    """Add one job of each status and return their ids by status."""
    client_id = await api.add_owner()
    return {status: (await api.seed_job(client_id, status=status)).id for status in JobStatus}


async def test_secret_is_required(api: Api) -> None:
    await api.needs_secret("GET", "/jobs")


async def test_empty_list(api: Api) -> None:
    assert await api.get("/jobs") == {"jobs": [], "total": 0}


async def test_entry_has_all_fields_of_a_job(api: Api) -> None:
    client_id = await api.add_owner()
    feature = api.add_feature(client_id, "Login")
    job = await api.seed_job(client_id, feature_id=feature, title="T")
    answer = await api.get("/jobs")
    assert set(answer) == {"jobs", "total"}
    (shown,) = answer["jobs"]
    assert set(shown) == ROW_KEYS | EMBEDDED
    assert (shown["id"], shown["prompt"], shown["title"]) == (job.id, job.prompt, "T")
    assert shown["client"] == {"id": client_id, "name": "Acme"}
    assert shown["feature"] == {"id": feature, "title": "Login"}
    assert shown["repository"] == {
        "id": job.repository_id,
        "owner_name": "acme",
        "repo_name": "shop",
        "default_branch": "main",
    }
    assert shown["created_at"] == "2026-03-01T12:30:15.123Z"


async def test_newest_first(api: Api) -> None:
    client_id = await api.add_owner()
    seeded = [(await api.seed_job(client_id, created_at=later(age))).id for age in (2, 0, 1)]
    assert await ids(api) == [seeded[0], seeded[2], seeded[1]]


async def test_pages(api: Api) -> None:
    client_id = await api.add_owner()
    newest = [(await api.seed_job(client_id, created_at=later(-age))).id for age in range(60)]
    assert await ids(api) == newest[:50]
    assert await ids(api, limit=7) == newest[:7]
    assert await ids(api, limit=7, offset=56) == newest[56:]
    assert await ids(api, limit=1000) == newest
    assert await ids(api, offset=60) == []
    for query in ({}, {"limit": 1}, {"offset": 59}, {"offset": 10_000}):
        assert (await api.get("/jobs", **query))["total"] == 60


@pytest.mark.parametrize(
    "wanted",
    ["queued", "running", "completed", "failed", "cancelled", "queued,running", STATUSES],
)
async def test_filter_by_status(api: Api, wanted: str) -> None:
    seeded = await seed_one_of_each(api)
    expected = {seeded[name] for name in wanted.split(", " if ", " in wanted else ",")}
    assert set(await ids(api, status=wanted)) == expected
    assert (await api.get("/jobs", status=wanted))["total"] == len(expected)


async def test_duplicate_status(api: Api) -> None:
    seeded = await seed_one_of_each(api)
    assert await ids(api, status="failed,failed") == [seeded["failed"]]


async def test_empty_filter_is_ignored(api: Api) -> None:
    seeded = await seed_one_of_each(api)
    assert set(await ids(api, status="", clientId="", featureId="")) == set(seeded.values())


async def test_filter_by_client_and_feature(api: Api) -> None:
    first, second = await api.add_owner(), await api.add_owner()
    feature = api.add_feature(first)
    plain = (await api.seed_job(first, created_at=later(1))).id
    featured = (await api.seed_job(first, feature_id=feature, status="failed")).id
    other = (await api.seed_job(second)).id
    assert await ids(api, clientId=first) == [plain, featured]
    assert await ids(api, clientId=second.upper()) == [other]
    assert await ids(api, featureId=feature.upper()) == [featured]
    assert await ids(api, clientId=first, status="failed") == [featured]
    assert await ids(api, clientId=second, featureId=feature) == []
    assert await ids(api, featureId=feature, status="queued,running") == []


@pytest.mark.parametrize("name", ["clientId", "featureId"])
async def test_unknown_client_or_feature_has_no_jobs(api: Api, name: str) -> None:
    await seed_one_of_each(api)
    assert await api.get("/jobs", **{name: new_id()}) == {"jobs": [], "total": 0}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("status=done", f"status 'done' is unknown. Use a comma-separated list of {STATUSES}."),
        ("status=queued,", f"status '' is unknown. Use a comma-separated list of {STATUSES}."),
        ("status=,", f"status '' is unknown. Use a comma-separated list of {STATUSES}."),
        ("status=Queued", f"status 'Queued' is unknown. Use a comma-separated list of {STATUSES}."),
        (
            "status=queued%00",
            f"status 'queued\\x00' is unknown. Use a comma-separated list of {STATUSES}.",
        ),
        ("clientId=x", "clientId 'x' is not a UUID."),
        ("featureId=%27", 'featureId "\'" is not a UUID.'),
        ("limit=0", "limit: Input should be greater than or equal to 1."),
        ("limit=-1", "limit: Input should be greater than or equal to 1."),
        ("limit=1001", "limit: Input should be less than or equal to 1000."),
        ("limit=", "limit: Input should be a valid integer"),
        ("limit=ten", "limit: Input should be a valid integer"),
        ("limit=1.5", "limit: Input should be a valid integer"),
        ("limit=NaN", "limit: Input should be a valid integer"),
        ("limit=" + "9" * 5000, "limit: Unable to parse input string as an integer"),
        ("offset=-1", "offset: Input should be greater than or equal to 0."),
        ("offset=2147483649", "offset: Input should be less than or equal to 2147483648."),
        ("offset=x", "offset: Input should be a valid integer"),
        ("limit=x&offset=y", "limit: Input should be a valid integer"),
    ],
)
async def test_invalid_filter(api: Api, query: str, reason: str) -> None:
    assert (await api.refusal(400, "GET", f"/jobs?{query}")).startswith(reason)
