"""Sample rows for the tests of the store."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from domain.hosts import Host
from domain.job_details import JobDetails, KeptWork
from domain.jobs import Job, JobState
from domain.keyed_requests import KeyedRequest
from domain.messages import Message, MessageType, NewMessage
from domain.repositories import Client, Repository
from store.protocol import Store

START = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)

UNKNOWN_ID = "9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d"
NO_IDS = (
    "",
    "no-such-id",
    UNKNOWN_ID,
    "9b2f7a0c5a074f5e9d0e3f6f5a0b1c2d",
    "{9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d}",
    "9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d\n",
    "' OR '1'='1",
    "\x00",
    "\ud800",
    "٣b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d",
    "x" * 100_000,
)
"""Unknown and malformed ids."""

TEXTS = {
    "quotes": """it's "quoted" `here`; DROP TABLE agent_jobs; -- \\ \\n %s {} $1 ?""",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f4a9 é e\u0301",
    "scripts": "日本語 العربية עברית ไทย",
    "separators": "a\u2028b\u2029c\u0085d\r\ne\tf\x0bg\x1fh\x7f\ufeff",
    "nul": "before\x00after\x00",
    "surrogates": "\ud800 alone \udfff and \udc80\ud83d",
    "last": "\U0010ffff\ufffe\uffff",
    "empty": "",
    "spaces": "  both ends \n",
    "number": "0123",
    "json": '{"type":"assistant","message":{"content":[{"text":"\\u0000"}]}}',
}


class RawTables(Protocol):
    """Direct access to the tables of an adapter, for rows without a store operation."""

    async def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None: ...

    async def select(self, table: str) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Backend:
    """An adapter under test: an open store, its tables, and a function that opens another store."""

    store: Store
    tables: RawTables
    connect: Callable[[], Awaitable[Store]]


@dataclass(frozen=True)
class World:
    """A store with one client and one repository."""

    store: Store
    client: Client
    repository: Repository

    def job(self, **overrides: Any) -> Job:
        values: dict[str, Any] = {
            "id": new_id(),
            "client_id": self.client.id,
            "repository_id": self.repository.id,
            "prompt": "Add a login page",
            "branch_name": f"feat/{uuid.uuid4().hex}",
            "created_at": START,
            "queued_at": START,
            "updated_at": START,
        }
        return Job(**values | overrides)

    async def add_job(self, **overrides: Any) -> Job:
        job = self.job(**overrides)
        await self.store.create_job(job)
        return job

    async def read(self, job: Job) -> Job:
        return (await self.details(job)).job

    async def details(self, job: Job) -> JobDetails:
        found = await self.store.get_job(job.id)
        assert found is not None
        return found

    async def transcript(self, job: Job, page: int = 1000) -> list[Message]:
        lines: list[Message] = []
        while True:
            part = await self.store.read_messages(job.id, last_seq(lines), page)
            lines += part
            if len(part) < page:
                return lines

    async def other(self) -> World:
        """Return the same store with another client and repository."""
        return await new_world(self.store)


async def new_world(store: Store) -> World:
    client = a_client()
    repository = a_repository(client)
    await store.create_client(client)
    await store.add_repository(repository)
    return World(store, client, repository)


def state_of(job: Job) -> JobState:
    """Return the job as it is read without its prompt."""
    return JobState(**{field.name: getattr(job, field.name) for field in fields(JobState)})


def last_seq(lines: Sequence[Message]) -> int:
    return lines[-1].seq if lines else 0


def new_id() -> str:
    return str(uuid.uuid4())


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_client(name: str = "Acme") -> Client:
    return Client(new_id(), name, START)


def a_repository(client: Client | None, **overrides: Any) -> Repository:
    repository = Repository(
        id=new_id(),
        client_id=client.id if client else None,
        owner_name="acme",
        repo_name="shop",
        default_branch="main",
        url="https://github.com/acme/shop",
        created_at=START,
        updated_at=START,
    )
    return replace(repository, **overrides)


def a_line(content: str = "hello", **overrides: Any) -> NewMessage:
    return replace(NewMessage(new_id(), MessageType.STDOUT, content, START), **overrides)


def lines(count: int, prefix: str = "line") -> list[NewMessage]:
    return [a_line(f"{prefix} {number}") for number in range(count)]


def a_host(**overrides: Any) -> Host:
    return replace(Host("mill-1", new_id(), "host-mill-1", 2, START), **overrides)


def work_of(job: Job, **overrides: Any) -> KeptWork:
    work = KeptWork(job.id, "a" * 40, "b" * 40, "mill-1", "diff --git a/x b/x\n", START)
    return replace(work, **overrides)


def a_request(key: str = "key-1", **overrides: Any) -> KeyedRequest:
    return replace(KeyedRequest("POST /jobs", key, "fingerprint", new_id(), START), **overrides)
