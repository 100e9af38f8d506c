"""Call the API, and prepare its store."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from domain.hosts import Host
from domain.jobs import Job, JobStatus
from domain.messages import MessageType, NewMessage
from domain.names.ids import new_id
from store.protocol import Guard, JobChanges, Store
from tests.unit.api.contract import Contract, Json

SECRET = "a-secret-for-tests"
BEARER = {"Authorization": f"Bearer {SECRET}"}
UNAUTHORIZED = {
    "error": "Unauthorized: send the header `Authorization: Bearer <AGENT_API_SECRET>`."
}
START = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Api:
    """The application in this process. Every answer is checked against its OpenAPI document."""

    def __init__(self, app: FastAPI, store: Store, path: Path, contract: Contract) -> None:
        self.app = app
        self.store = store
        self.path = path
        self.contract = contract
        # A server logs an exception that leaves the application, and does not raise it.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def call(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> httpx.Response:
        """Send a request, with the secret unless `headers` are given."""
        options.setdefault("headers", BEARER)
        if body is not None:
            options["json"] = body
        response = await self.http.request(method, path, **options)
        self.contract.check(response)
        return response

    async def get(self, path: str, **query: Any) -> Json:
        response = await self.call("GET", path, params=query or None)
        assert response.status_code == 200, response.text[:1000]
        answer: Json = response.json()
        return answer

    async def post(self, path: str, body: Any = None, expect: int = 200) -> Json:
        response = await self.call("POST", path, body)
        assert response.status_code == expect, response.text[:1000]
        answer: Json = response.json()
        return answer

    async def refusal(self, expect: int, method: str, path: str, body: Any = None) -> str:
        """Send a request that is refused, and return its error."""
        response = await self.call(method, path, body)
        assert response.status_code == expect, response.text[:1000]
        answer = response.json()
        assert list(answer) == ["error"]
        return str(answer["error"])

    async def needs_secret(self, method: str, path: str) -> None:
        response = await self.call(method, path, headers={})
        assert (response.status_code, response.json()) == (401, UNAUTHORIZED)
        assert response.headers["www-authenticate"] == "Bearer"

    async def add_client(self, name: str = "Acme") -> str:
        """Add a client without a repository and return its id."""
        return str((await self.post("/clients", {"name": name}, 201))["id"])

    async def add_repository(self, client_id: str, name: str = "shop", **body: Any) -> Json:
        body = {"githubOrg": "acme", "githubRepo": name, **body}
        return await self.post(f"/clients/{client_id}/repository", body, 201)

    async def add_owner(self, name: str = "shop") -> str:
        """Add a client with a repository and return its id."""
        client_id = await self.add_client()
        await self.add_repository(client_id, name)
        return client_id

    async def add_job(self, client_id: str, **body: Any) -> Json:
        """Create a job: by default a code job on a new branch."""
        body = {"clientId": client_id, "prompt": "Add a login page", **body}
        if body.get("jobType") != "task":
            body.setdefault("branchName", f"feature/{uuid.uuid4().hex[:12]}")
        return await self.post("/jobs", body, 201)

    async def seed_job(self, client_id: str, **values: Any) -> Job:
        """Store a job in any state, without a workflow."""
        details = await self.store.get_client(client_id)
        assert details is not None
        moment = values.get("created_at", START)
        job = Job(
            id=new_id(),
            client_id=client_id,
            repository_id=details.repositories[0].id,
            prompt="Add a login page",
            branch_name=f"feature/{uuid.uuid4().hex[:12]}",
            created_at=moment,
            queued_at=moment,
            updated_at=moment,
        )
        job = replace(job, **values)
        await self.store.create_job(job)
        return job

    async def change_job(self, job_id: str, **changes: Any) -> None:
        assert await self.store.update_job(
            job_id,
            JobChanges(**changes),  # type: ignore[typeddict-item]
            Guard(frozenset(JobStatus)),
        )

    async def add_lines(self, job_id: str, count: int, prefix: str = "line") -> None:
        """Add the messages `line 1`, `line 2`, ... to a job."""
        lines = [
            NewMessage(new_id(), MessageType.STDOUT, f"{prefix} {number}", START)
            for number in range(1, count + 1)
        ]
        await self.store.append_messages(job_id, lines)

    async def report_host(self, **values: Any) -> None:
        """Report a live host, like its worker does."""
        host = Host("mill", new_id(), "host-mill", 2, datetime.now(UTC))
        await self.store.report_host(replace(host, **values))

    def insert(self, table: str, *rows: Json) -> None:
        """Insert rows that no operation of the store writes."""
        names = list(rows[0])
        statement = (
            f"INSERT INTO {table} ({', '.join(names)}) "
            f"VALUES ({', '.join(f':{name}' for name in names)})"
        )
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(statement, rows)

    def add_feature(self, client_id: str, title: str = "Login") -> str:
        feature_id = new_id()
        self.insert("features", {"id": feature_id, "client_id": client_id, "title": title})
        return feature_id

    def add_team_member(self) -> str:
        member_id = new_id()
        self.insert("team_members", {"id": member_id, "full_name": "Ada"})
        return member_id
