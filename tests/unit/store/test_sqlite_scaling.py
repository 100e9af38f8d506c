"""The cost of reads does not grow with the number of rows, measured in SQLite's steps."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from domain.job_details import JobFilter
from domain.jobs import FINAL, LIVE, JobStatus
from store.sqlite.connections import READERS
from store.sqlite.store import SqliteStore
from tests.unit.store.samples import START, later, new_id

CLIENTS = [new_id() for _ in range(4)]
FEATURE = new_id()
WAITING = [f"00000000-0000-4000-8000-{number:012d}" for number in range(20)]

Read = Callable[[SqliteStore], Awaitable[Any]]

READS: dict[str, Read] = {
    "all jobs": lambda s: s.list_jobs(JobFilter(), 50, 0),
    "ended jobs": lambda s: s.list_jobs(JobFilter(FINAL), 50, 0),
    "live jobs": lambda s: s.list_jobs(JobFilter(LIVE), 50, 0),
    "jobs of a client": lambda s: s.list_jobs(JobFilter(client_id=CLIENTS[0]), 50, 0),
    "ended jobs of a client": lambda s: s.list_jobs(JobFilter(FINAL, CLIENTS[0]), 50, 0),
    "live jobs of a feature": lambda s: s.list_jobs(JobFilter(LIVE, None, FEATURE), 50, 0),
    "one job": lambda s: s.get_job(WAITING[0]),
    "one job's state": lambda s: s.get_job_state(WAITING[0]),
    "queue": lambda s: s.queue(100),
    "position": lambda s: s.queue_position(WAITING[-1]),
    "first": lambda s: s.first_in_queue(WAITING[:5]),
    "reconcile": lambda s: s.jobs_to_reconcile(later(1e6), "", 100),
    "lines": lambda s: s.read_messages(WAITING[0], 10, 100),
    "lines by id": lambda s: s.messages_by_id(WAITING[0], WAITING),
    "append": lambda s: s.append_messages(WAITING[0], []),
}


def fill(connection: sqlite3.Connection, ended: int) -> None:
    insert(connection, "clients", [{"id": c, "name": c, "created_at": "x"} for c in CLIENTS])
    feature = {"id": FEATURE, "client_id": CLIENTS[0], "title": "F"}
    insert(connection, "features", [feature])
    statuses = sorted(FINAL)
    jobs = [a_row(new_id(), number, statuses[number % 3]) for number in range(ended)]
    jobs += [
        a_row(job_id, number, JobStatus.QUEUED, "waiting_for_slot")
        for number, job_id in enumerate(WAITING)
    ]
    jobs[-1] |= {"feature_id": FEATURE}
    insert(connection, "agent_jobs", jobs)
    lines = [
        {"id": new_id(), "job_id": job["id"], "seq": seq, "type": "stdout", "content": "x"}
        | {"created_at": START.isoformat()}
        for job in jobs
        for seq in range(1, 6)
    ]
    insert(connection, "agent_job_messages", lines)


def a_row(job_id: str, number: int, status: str, phase: str | None = None) -> dict[str, Any]:
    moment = later(number // 3).isoformat(timespec="microseconds")
    return {
        "id": job_id,
        "client_id": CLIENTS[number % 4],
        "status": status,
        "phase": phase,
        "prompt": "p",
        "branch_name": f"b{number}",
        "created_at": moment,
        "queued_at": moment,
        "updated_at": moment,
        "feature_id": None,
    }


def insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    marks = ", ".join(f":{name}" for name in rows[0])
    connection.executemany(f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})", rows)


async def filled_store(path: Path, ended: int) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    with closing(sqlite3.connect(path)) as connection, connection:
        fill(connection, ended)
    return store


@pytest.fixture(scope="module")
async def stores(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[SqliteStore, SqliteStore]]:
    directory: Path = tmp_path_factory.mktemp("scaling")
    small = await filled_store(directory / "small.db", 300)
    large = await filled_store(directory / "large.db", 12_000)
    yield small, large
    await small.close()
    await large.close()


async def steps(store: SqliteStore, read: Read) -> int:
    """Return the number of SQLite bytecode instructions of a read."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    for connection in connections_of(store):
        connection.set_progress_handler(count, 1)
    try:
        await read(store)
    finally:
        for connection in connections_of(store):
            connection.set_progress_handler(None, 0)
    return counted


def connections_of(store: SqliteStore) -> list[sqlite3.Connection]:
    connections = store._connections
    assert connections is not None
    assert connections._write_connection is not None
    readers = [connections._idle.get(timeout=5) for _ in range(READERS)]
    for reader in readers:
        connections._idle.put(reader)
    return [connections._write_connection, *readers]


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_the_steps_of_a_read_do_not_grow_with_the_number_of_jobs(
    stores: tuple[SqliteStore, SqliteStore], read: Read
) -> None:
    small, large = [await steps(store, read) for store in stores]
    assert 0 < large <= 1.3 * small + 50


async def test_the_step_count_detects_a_read_that_grows(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    def scan(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT count(*) FROM agent_jobs WHERE status <> 'x'").fetchone()

    small, large = [await steps(store, lambda s: s._opened.read(scan)) for store in stores]
    assert large > 10 * small
