"""Reads must not cost more when more is stored: counted in SQLite's own steps, not in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from domain.job_details import JobFilter
from domain.jobs import FINAL, LIVE, JobStatus
from store import sqlite_job_lists, sqlite_jobs, sqlite_messages, sqlite_queue
from store.sqlite_schema import create_schema
from tests.store.samples import START, later, new_id

CLIENTS = [new_id() for _ in range(4)]
FEATURE = new_id()
WAITING = [f"00000000-0000-4000-8000-{number:012d}" for number in range(20)]

Read = Callable[[sqlite3.Connection], Any]

READS: dict[str, Read] = {
    "all jobs": lambda c: sqlite_job_lists.list_jobs(c, JobFilter(), 50, 0),
    "ended jobs": lambda c: sqlite_job_lists.list_jobs(c, JobFilter(FINAL), 50, 0),
    "live jobs": lambda c: sqlite_job_lists.list_jobs(c, JobFilter(LIVE), 50, 0),
    "jobs of a client": lambda c: sqlite_job_lists.list_jobs(
        c, JobFilter(client_id=CLIENTS[0]), 50, 0
    ),
    "ended jobs of a client": lambda c: sqlite_job_lists.list_jobs(
        c, JobFilter(FINAL, CLIENTS[0]), 50, 0
    ),
    "live jobs of a feature": lambda c: sqlite_job_lists.list_jobs(
        c, JobFilter(LIVE, None, FEATURE), 50, 0
    ),
    "one job": lambda c: sqlite_jobs.get_job(c, WAITING[0]),
    "queue": lambda c: sqlite_queue.queue(c, 100),
    "position": lambda c: sqlite_queue.queue_position(c, WAITING[-1]),
    "first": lambda c: sqlite_queue.first_in_queue(c, WAITING[:5]),
    "reconcile": lambda c: sqlite_jobs.jobs_to_reconcile(c, later(1e6), "", 100),
    "lines": lambda c: sqlite_messages.read_messages(c, WAITING[0], 10, 100),
    "lines by id": lambda c: sqlite_messages.messages_by_id(c, WAITING[0], WAITING),
    "append": lambda c: sqlite_messages.append_lines(c, WAITING[0], {}, None),
}


def fill(connection: sqlite3.Connection, ended: int) -> None:
    create_schema(connection, Path("jobs.db"))
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


@pytest.fixture(scope="module")
def connections(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    directory: Path = tmp_path_factory.mktemp("scaling")
    with (
        closing(sqlite3.connect(directory / "small.db")) as small,
        closing(sqlite3.connect(directory / "large.db")) as large,
    ):
        fill(small, 300)
        fill(large, 12_000)
        yield small, large


def steps(connection: sqlite3.Connection, read: Read) -> int:
    """Return how many of SQLite's virtual machine instructions a read takes."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    connection.set_progress_handler(count, 1)
    try:
        read(connection)
    finally:
        connection.set_progress_handler(None, 0)
    return counted


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_read_takes_as_many_steps_with_forty_times_the_jobs(
    connections: tuple[sqlite3.Connection, sqlite3.Connection], read: Read
) -> None:
    small, large = (steps(connection, read) for connection in connections)
    assert 0 < large <= 1.3 * small + 50


def test_steps_would_show_a_read_that_grows(
    connections: tuple[sqlite3.Connection, sqlite3.Connection],
) -> None:
    def scan(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT count(*) FROM agent_jobs WHERE status <> 'x'").fetchone()

    small, large = (steps(connection, scan) for connection in connections)
    assert large > 10 * small
