"""An outage of the store or Temporal is an error, never "not found" or an empty list."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.errors import DependencyUnavailable
from domain.jobs import JobStatus, JobType, Phase
from domain.names.ids import new_id
from temporal.client import connect
from tests.unit.api.calls import Api
from tests.unit.api.conftest import MakeApi
from tests.unit.api.contract import Contract

DOWN = "The store's file did not answer. Try again."
NO_TEMPORAL = "Temporal does not answer. Nothing was changed; try again when /health is ok."
SOME_ID = new_id()
CODE = {"prompt": "x", "branchName": "x"}

CALLS: dict[str, tuple[str, str, Any]] = {
    "GET /clients": ("GET", "/clients", None),
    "POST /clients": ("POST", "/clients", {"name": "A"}),
    "GET /clients/{client_id}": ("GET", f"/clients/{SOME_ID}", None),
    "POST /clients/{client_id}/repository": (
        "POST",
        f"/clients/{SOME_ID}/repository",
        {"githubOrg": "acme", "githubRepo": "shop"},
    ),
    "GET /jobs": ("GET", "/jobs?status=failed", None),
    "GET /jobs/{job_id}": ("GET", f"/jobs/{SOME_ID}?includeMessages=true", None),
    "GET /jobs/{job_id}/messages": ("GET", f"/jobs/{SOME_ID}/messages", None),
    "GET /jobs/{job_id}/patch": ("GET", f"/jobs/{SOME_ID}/patch", None),
    "POST /jobs": ("POST", "/jobs", {**CODE, "clientId": SOME_ID}),
    "POST /jobs by name": (
        "POST",
        "/jobs",
        {**CODE, "githubOrg": "acme", "githubRepo": "shop"},
    ),
    "POST /jobs/{job_id}/cancel": ("POST", f"/jobs/{SOME_ID}/cancel", None),
    "POST /jobs/{job_id}/retry": ("POST", f"/jobs/{SOME_ID}/retry", None),
    "POST /jobs/{job_id}/message": ("POST", f"/jobs/{SOME_ID}/message", {"message": "x"}),
    "POST /jobs/{job_id}/complete": ("POST", f"/jobs/{SOME_ID}/complete", None),
    "GET /queue": ("GET", "/queue", None),
    "POST /sync": ("POST", "/sync", None),
    "POST /repos/clone": ("POST", "/repos/clone", None),
    "POST /repos/{repository_id}/clone": ("POST", f"/repos/{SOME_ID}/clone", None),
}
"""Every route that needs the store."""


class StoreThatIsDown:
    def __getattr__(self, name: str) -> Any:
        async def fail(*arguments: object) -> None:
            raise DependencyUnavailable(DOWN, "store")

        return fail


@pytest.fixture
def without_store(make_api: MakeApi, api: Api, parked: TemporalClient) -> Api:
    return make_api(StoreThatIsDown(), api.path, parked)


class TestWithoutStore:
    def test_calls_cover_every_route(self, contract: Contract) -> None:
        routes = {
            f"{method.upper()} {path}"
            for path, operations in contract.document["paths"].items()
            for method in operations
        }
        assert routes - set(CALLS) == {"GET /health"}

    async def test_every_route_answers_503(self, without_store: Api) -> None:
        for method, path, body in CALLS.values():
            assert await without_store.refusal(503, method, path, body) == DOWN

    async def test_health_answers_503(self, without_store: Api) -> None:
        response = await without_store.call("GET", "/health")
        assert response.status_code == 503
        assert response.json()["error"] == "The store does not answer."

    async def test_requests_without_the_store_are_answered(self, without_store: Api) -> None:
        assert "is not a UUID" in await without_store.refusal(400, "GET", "/jobs/x")
        assert await without_store.refusal(400, "POST", "/clients", {}) == "name is required."
        await without_store.refusal(404, "GET", "/nope")

    async def test_closed_store(self, api: Api) -> None:
        await api.store.close()
        for method, path, body in CALLS.values():
            reason = await api.refusal(503, method, path, body)
            assert reason == "The store is not open. Open it first."

    async def test_damaged_store(self, api: Api) -> None:
        with closing(sqlite3.connect(api.path)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            for table in ("agent_jobs", "code_repositories", "clients", "agent_hosts"):
                connection.execute(f"DROP TABLE {table}")
        for method, path, body in CALLS.values():
            reason = await api.refusal(500, method, path, body)
            assert "does not have the tables of this version" in reason


class TestWithALockedStore:
    """Another process holds the write lock: reads succeed; writes wait and then fail."""

    @pytest.fixture
    async def job_id(self, api: Api) -> AsyncIterator[str]:
        job = await api.seed_job(await api.add_owner())
        with closing(sqlite3.connect(api.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield job.id

    async def test_reads_succeed(self, api: Api, job_id: str) -> None:
        assert (await api.get(f"/jobs/{job_id}"))["status"] == "queued"
        assert (await api.get("/queue"))["totals"]["queued"] == 1

    async def test_writes_fail(self, api: Api, job_id: str) -> None:
        client_id = (await api.get(f"/jobs/{job_id}"))["client_id"]
        reasons = await asyncio.gather(
            api.refusal(503, "POST", "/jobs", {**CODE, "clientId": client_id}),
            api.refusal(503, "POST", "/clients", {"name": "A"}),
            api.refusal(503, "POST", f"/jobs/{job_id}/cancel"),
        )
        assert all("another process kept it locked" in reason for reason in reasons)
        assert (await api.get(f"/jobs/{job_id}"))["status"] == "queued"


@pytest.fixture
async def silent_temporal(make_api: MakeApi, api: Api) -> AsyncIterator[Api]:
    """The API with a Temporal that accepts connections but never answers."""

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    temporal = await connect(f"127.0.0.1:{port}", "default", lazy=True)
    async with server:
        yield make_api(api.store, api.path, temporal)


class TestWithoutTemporal:
    async def test_job_is_accepted(self, without_temporal: Api) -> None:
        """The reconciler starts the workflow when Temporal is back."""
        client_id = await without_temporal.add_owner()
        for job_type in ("code", "task"):
            job = await without_temporal.add_job(client_id, jobType=job_type)
            shown = await without_temporal.get(f"/jobs/{job['id']}")
            assert (shown["status"], shown["phase"]) == ("queued", "waiting_for_slot")
        assert (await without_temporal.get("/queue"))["totals"]["queued"] == 2

    async def test_queued_job_is_cancelled(self, without_temporal: Api) -> None:
        job = await without_temporal.add_job(await without_temporal.add_owner())
        answer = await without_temporal.post(f"/jobs/{job['id']}/cancel")
        assert answer == {"id": job["id"], "status": "cancelled", "wasRunning": False}
        assert (await without_temporal.get(f"/jobs/{job['id']}"))["status"] == "cancelled"

    async def test_job_is_retried(self, without_temporal: Api) -> None:
        job = await without_temporal.seed_job(
            await without_temporal.add_owner(), status=JobStatus.FAILED
        )
        answer = await without_temporal.post(f"/jobs/{job.id}/retry", expect=201)
        assert (await without_temporal.get(f"/jobs/{answer['id']}"))["status"] == "queued"

    async def test_conversation_answers_503(self, without_temporal: Api) -> None:
        job = await without_temporal.seed_job(
            await without_temporal.add_owner(),
            job_type=JobType.TASK,
            status=JobStatus.RUNNING,
            phase=Phase.WAITING_FOR_USER,
        )
        path = f"/jobs/{job.id}"
        body = {"message": "x"}
        assert await without_temporal.refusal(503, "POST", f"{path}/message", body) == NO_TEMPORAL
        assert await without_temporal.refusal(503, "POST", f"{path}/complete") == NO_TEMPORAL
        assert (await without_temporal.get(f"{path}/messages"))["messages"] == []
        assert (await without_temporal.get(path))["status"] == "running"

    async def test_fetching_answers_503(self, without_temporal: Api) -> None:
        repository = await without_temporal.add_repository(await without_temporal.add_client())
        await without_temporal.report_host()
        for path in ("/sync", "/repos/clone", f"/repos/{repository['id']}/clone"):
            assert await without_temporal.refusal(503, "POST", path) == NO_TEMPORAL

    async def test_requests_without_temporal_are_answered(self, without_temporal: Api) -> None:
        client_id = await without_temporal.add_owner()
        job = await without_temporal.seed_job(client_id)
        for path in ("/clients", f"/clients/{client_id}", "/jobs", f"/jobs/{job.id}", "/queue"):
            await without_temporal.get(path)


async def test_silent_temporal_delays_no_answer(silent_temporal: Api) -> None:
    await silent_temporal.report_host()
    client_id = await silent_temporal.add_owner()
    talk = await silent_temporal.seed_job(
        client_id, job_type=JobType.TASK, status=JobStatus.RUNNING
    )
    other = await silent_temporal.seed_job(client_id)
    began = time.monotonic()
    answers = await asyncio.gather(
        silent_temporal.call("GET", "/health"),
        silent_temporal.call("POST", "/jobs", {**CODE, "clientId": client_id}),
        silent_temporal.call("POST", f"/jobs/{other.id}/cancel"),
        silent_temporal.call("POST", f"/jobs/{talk.id}/message", {"message": "x"}),
        silent_temporal.call("POST", f"/jobs/{talk.id}/complete"),
        silent_temporal.call("POST", "/sync"),
    )
    assert time.monotonic() - began < 4
    assert [answer.status_code for answer in answers] == [503, 201, 200, 503, 503, 503]
    assert answers[0].json()["error"] == "Temporal does not answer."
