"""What version 1 of the schema kept is there after an upgrade, in both adapters."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import DependencyFailed
from domain.failures import Clock, FailureCode
from domain.jobs import Job, JobOptions, JobStatus, JobType, Outcome, Phase, RetryFrom, Usage
from store.protocol import Guard, JobFilter, Store
from store.sqlite import SqliteStore
from store.sqlite_schema import SCHEMA_VERSION
from store.supabase_store import SupabaseStore
from tests.store.samples import START, World, a_request, later, new_id, work_of
from tests.store.supabase.data_api import SECRET_KEY, DataApi
from tests.store.supabase.project import SupabaseProject, SupabaseTables

VERSION_1 = Path(__file__).parent / "version_1.sql"
VERSION_2_MIGRATIONS = "20261125"
DATABASE = "version_1"

DONE, TASK, FAILED, RETRY = (f"00000000-0000-4000-8000-{number:012}" for number in range(1, 5))

TABLES = (
    "clients",
    "code_repositories",
    "code_branches",
    "code_pull_requests",
    "agent_jobs",
    "agent_job_messages",
    "agent_job_inbox",
    "agent_job_sessions",
    "agent_job_usage_reports",
    "agent_hosts",
)
"""Those with rows, each after what it refers to. Totals are made by the triggers."""

Rows = dict[str, list[dict[str, Any]]]


def write_version_1(path: str | Path) -> Rows:
    """Make a database as version 1 left it; returns its rows."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
    return rows_in(path)


def rows_in(path: str | Path) -> Rows:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for table in TABLES
        }


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in row.items()
    }


class Earlier:
    """A project that was version 1's, what opening it said then, and its data API."""

    def __init__(self, project: SupabaseProject, work: Path) -> None:
        server = project.server
        server.create_database(DATABASE)
        server.push(DATABASE, before=VERSION_2_MIGRATIONS)
        tables = SupabaseTables(server, DATABASE)
        for table, rows in write_version_1(work / "version_1.db").items():
            asyncio.run(tables.insert(table, [as_json(row) for row in rows]))
        address = server.address(DATABASE)
        api = DataApi(address, work / "before")
        try:
            self.refusal = asyncio.run(refusal_of_opening(api.url))
        finally:
            api.stop()
        server.push(DATABASE)
        # A new one, because it reads the schema when it starts.
        self.api = DataApi(address, work / "after")


async def refusal_of_opening(url: str) -> str:
    store = SupabaseStore(url, SECRET_KEY)
    with pytest.raises(DependencyFailed) as caught:
        await store.open()
    return caught.value.message


@pytest.fixture(scope="session")
def earlier(
    supabase_project: SupabaseProject, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Earlier]:
    earlier = Earlier(supabase_project, tmp_path_factory.mktemp("earlier"))
    yield earlier
    earlier.api.stop()


@pytest.fixture(params=["sqlite", "supabase"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store, not yet open, on what was version 1's."""
    if request.param == "sqlite":
        write_version_1(tmp_path / "orchestrator.db")
        return SqliteStore(tmp_path / "orchestrator.db")
    earlier: Earlier = request.getfixturevalue("earlier")
    return SupabaseStore(earlier.api.url, SECRET_KEY)


@pytest.fixture
async def upgraded(backend: Store) -> AsyncIterator[Store]:
    await backend.open()
    yield backend
    await backend.close()


async def job_of(store: Store, job_id: str) -> Job:
    details = await store.get_job(job_id)
    assert details is not None
    return details.job


async def test_ended_jobs_are_read(upgraded: Store) -> None:
    done, failed = await job_of(upgraded, DONE), await job_of(upgraded, FAILED)
    assert (done.prompt, done.status, done.outcome) == (
        "Add a login page 👋",
        JobStatus.COMPLETED,
        Outcome.PULL_REQUEST,
    )
    assert (done.usage, done.claude_seconds) == (Usage(2, 0.25, 10, 20, 30, 40), 12.5)
    assert (done.created_at, done.started_at, done.completed_at) == (START, later(1), later(60))
    assert (done.pr_number, done.result, done.lease) == (7, "Added it.", 1)
    assert (failed.failure_code, failed.error) == (FailureCode.TIMED_OUT, "It took too long.")


@pytest.mark.parametrize("job_id", [DONE, FAILED])
async def test_what_is_new_has_its_default(upgraded: Store, job_id: str) -> None:
    job = await job_of(upgraded, job_id)
    assert (job.options, job.retry_from) == (JobOptions(), None)
    assert (job.clock, job.resumes_at, job.cost_is_estimate) == (None, None, False)
    assert await upgraded.kept_work(job_id) is None


async def test_a_conversation_is_read(upgraded: Store) -> None:
    task = await job_of(upgraded, TASK)
    assert (task.job_type, task.phase, task.lease) == (JobType.TASK, Phase.WAITING_FOR_USER, 2)
    assert await upgraded.load_session(TASK) == ("session-1", b"transcript")
    message = "00000000-0000-4000-8000-00000000a009"
    assert await upgraded.take_from_inbox(TASK, message)
    (line,) = await upgraded.read_messages(TASK, 0, 10)
    assert (line.id, line.content, line.seq) == (message, "Hello?", 1)


async def test_lists_and_totals_are_read(upgraded: Store) -> None:
    ended = await upgraded.list_jobs(
        JobFilter(frozenset({JobStatus.COMPLETED, JobStatus.FAILED})), 10, 0
    )
    assert ([details.job.id for details in ended.jobs], ended.total) == ([FAILED, DONE], 2)
    found = await upgraded.read_messages(DONE, 0, 10)
    assert [(line.content, line.seq) for line in found] == [
        (f"line {number}", number) for number in (1, 2, 3)
    ]
    assert [host.id for host in await upgraded.live_hosts(START)] == ["mill-1"]
    assert await upgraded.queue_position(RETRY) == 1


async def test_what_is_new_can_be_kept(upgraded: Store) -> None:
    old = await job_of(upgraded, RETRY)
    assert await upgraded.update_job(
        old.id,
        {"clock": Clock.TURN, "resumes_at": later(9), "cost_is_estimate": True},
        Guard(frozenset({JobStatus.QUEUED})),
    )
    found = await job_of(upgraded, RETRY)
    expected = replace(old, clock=Clock.TURN, resumes_at=later(9), cost_is_estimate=True)
    assert found == replace(expected, updated_at=found.updated_at)
    details = await upgraded.get_client(old.client_id)
    assert details is not None
    world = World(upgraded, details.client, details.repositories[0])
    job = await world.add_job(
        status=JobStatus.CANCELLED,
        retry_of=old.id,
        retry_from=RetryFrom.PUBLISH,
        options=JobOptions(model="opus"),
    )
    assert await world.read(job) == job
    await upgraded.keep_work(work_of(job))
    assert await upgraded.kept_work(job.id) == work_of(job)
    await upgraded.hold_credential("credential", later(1))
    assert await upgraded.credential_held_until("credential") == later(1)
    request = a_request(new_id())
    assert await upgraded.claim_key(request) == request


def test_a_project_of_version_1_is_refused_with_the_remedy(earlier: Earlier) -> None:
    assert "this version's tables" in earlier.refusal
    assert "supabase db push" in earlier.refusal


async def test_no_value_in_a_file_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    before = write_version_1(path)
    await open_and_close(path)
    after = rows_in(path)
    for table, rows in before.items():
        assert rows
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert kept == rows, table


async def test_an_upgraded_file_has_all_that_a_new_one_has(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    write_version_1(old)
    for path in (old, new, old):
        await open_and_close(path)
    assert schema_of(old) == schema_of(new)
    assert len(schema_of(new)) > 30


async def open_and_close(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


def schema_of(path: Path) -> set[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        return set(connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema"))
