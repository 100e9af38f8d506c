"""When the store or Temporal is down the API says so: never "not found", never an empty list."""

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
def storeless(make_api: MakeApi, api: Api, parked: TemporalClient) -> Api:
    return make_api(StoreThatIsDown(), api.path, parked)


class TestWithoutStore:
    def test_no_route_is_forgotten(self, contract: Contract) -> None:
        routes = {
            f"{method.upper()} {path}"
            for path, operations in contract.document["paths"].items()
            for method in operations
        }
        assert routes - set(CALLS) == {"GET /health"}

    async def test_every_route_says_so(self, storeless: Api) -> None:
        for method, path, body in CALLS.values():
            assert await storeless.refusal(503, method, path, body) == DOWN

    async def test_health_says_so(self, storeless: Api) -> None:
        response = await storeless.call("GET", "/health")
        assert response.status_code == 503
        assert response.json()["error"] == "The store does not answer."

    async def test_what_needs_no_store_is_answered(self, storeless: Api) -> None:
        assert "is not a UUID" in await storeless.refusal(400, "GET", "/jobs/x")
        assert await storeless.refusal(400, "POST", "/clients", {}) == "name is required."
        await storeless.refusal(404, "GET", "/nope")

    async def test_a_closed_file(self, api: Api) -> None:
        await api.store.close()
        for method, path, body in CALLS.values():
            reason = await api.refusal(503, method, path, body)
            assert reason == "The store is not open. Open it first."

    async def test_a_damaged_file(self, api: Api) -> None:
        with closing(sqlite3.connect(api.path)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            for table in ("agent_jobs", "code_repositories", "clients", "agent_hosts"):
                connection.execute(f"DROP TABLE {table}")
        for method, path, body in CALLS.values():
            reason = await api.refusal(500, method, path, body)
            assert "does not have the tables of this version" in reason


class TestWithALockedStore:
    """Another process writes and does not stop: reading goes on, writing waits and then fails."""

    @pytest.fixture
    async def job_id(self, api: Api) -> AsyncIterator[str]:
        job = await api.seed_job(await api.add_owner())
        with closing(sqlite3.connect(api.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield job.id

    async def test_reading_goes_on(self, api: Api, job_id: str) -> None:
        assert (await api.get(f"/jobs/{job_id}"))["status"] == "queued"
        assert (await api.get("/queue"))["totals"]["queued"] == 1

    async def test_writing_fails(self, api: Api, job_id: str) -> None:
        client_id = (await api.get(f"/jobs/{job_id}"))["client_id"]
        reasons = await asyncio.gather(
            api.refusal(503, "POST", "/jobs", {**CODE, "clientId": client_id}),
            api.refusal(503, "POST", "/clients", {"name": "A"}),
            api.refusal(503, "POST", f"/jobs/{job_id}/cancel"),
        )
        assert all("another process kept it locked" in reason for reason in reasons)
        assert (await api.get(f"/jobs/{job_id}"))["status"] == "queued"


@pytest.fixture
async def silent(make_api: MakeApi, api: Api) -> AsyncIterator[Api]:
    """The API before a Temporal that takes connections and never answers, as a stopped one does."""

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    temporal = await connect(f"127.0.0.1:{port}", "default", lazy=True)
    async with server:
        yield make_api(api.store, api.path, temporal)


class TestWithoutTemporal:
    async def test_a_job_is_accepted_all_the_same(self, cut_off: Api) -> None:
        """The row is the acceptance; its workflow is started when Temporal is back."""
        client_id = await cut_off.add_owner()
        for job_type in ("code", "task"):
            job = await cut_off.add_job(client_id, jobType=job_type)
            shown = await cut_off.get(f"/jobs/{job['id']}")
            assert (shown["status"], shown["phase"]) == ("queued", "waiting_for_slot")
        assert (await cut_off.get("/queue"))["totals"]["queued"] == 2

    async def test_a_queued_job_is_cancelled_all_the_same(self, cut_off: Api) -> None:
        job = await cut_off.add_job(await cut_off.add_owner())
        answer = await cut_off.post(f"/jobs/{job['id']}/cancel")
        assert answer == {"id": job["id"], "status": "cancelled", "wasRunning": False}
        assert (await cut_off.get(f"/jobs/{job['id']}"))["status"] == "cancelled"

    async def test_a_job_is_retried_all_the_same(self, cut_off: Api) -> None:
        job = await cut_off.seed_job(await cut_off.add_owner(), status=JobStatus.FAILED)
        answer = await cut_off.post(f"/jobs/{job.id}/retry", expect=201)
        assert (await cut_off.get(f"/jobs/{answer['id']}"))["status"] == "queued"

    async def test_a_conversation_cannot_go_on(self, cut_off: Api) -> None:
        job = await cut_off.seed_job(
            await cut_off.add_owner(),
            job_type=JobType.TASK,
            status=JobStatus.RUNNING,
            phase=Phase.WAITING_FOR_USER,
        )
        path = f"/jobs/{job.id}"
        body = {"message": "x"}
        assert await cut_off.refusal(503, "POST", f"{path}/message", body) == NO_TEMPORAL
        assert await cut_off.refusal(503, "POST", f"{path}/complete") == NO_TEMPORAL
        assert (await cut_off.get(f"{path}/messages"))["messages"] == []
        assert (await cut_off.get(path))["status"] == "running"

    async def test_nothing_is_fetched(self, cut_off: Api) -> None:
        repository = await cut_off.add_repository(await cut_off.add_client())
        await cut_off.report_host()
        for path in ("/sync", "/repos/clone", f"/repos/{repository['id']}/clone"):
            assert await cut_off.refusal(503, "POST", path) == NO_TEMPORAL

    async def test_what_needs_no_temporal_is_answered(self, cut_off: Api) -> None:
        client_id = await cut_off.add_owner()
        job = await cut_off.seed_job(client_id)
        for path in ("/clients", f"/clients/{client_id}", "/jobs", f"/jobs/{job.id}", "/queue"):
            await cut_off.get(path)


async def test_a_temporal_that_says_nothing_holds_nobody_up(silent: Api) -> None:
    await silent.report_host()
    client_id = await silent.add_owner()
    talk = await silent.seed_job(client_id, job_type=JobType.TASK, status=JobStatus.RUNNING)
    other = await silent.seed_job(client_id)
    began = time.monotonic()
    answers = await asyncio.gather(
        silent.call("GET", "/health"),
        silent.call("POST", "/jobs", {**CODE, "clientId": client_id}),
        silent.call("POST", f"/jobs/{other.id}/cancel"),
        silent.call("POST", f"/jobs/{talk.id}/message", {"message": "x"}),
        silent.call("POST", f"/jobs/{talk.id}/complete"),
        silent.call("POST", "/sync"),
    )
    assert time.monotonic() - began < 4
    assert [answer.status_code for answer in answers] == [503, 201, 200, 503, 503, 503]
    assert answers[0].json()["error"] == "Temporal does not answer."
