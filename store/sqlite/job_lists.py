"""Lists of jobs: pages, newest first, and the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from typing_extensions import override

from domain.job_details import JobFilter, JobPage, Queue, QueueEntry
from store.codec.rows import QUEUE_COLUMNS, queue_entry_from_row
from store.codec.values import canonical_id
from store.protocol import JobListStore, QueueStore
from store.sqlite.connections import SqliteAggregate, reading
from store.sqlite.jobs import DETAILS_COLUMNS, DETAILS_TABLES, details_from_values
from store.sqlite.schema import NEEDS_NO_SLOT, RUNS, WAITS_FOR_SLOT
from store.sqlite.statements import bounded, json_list, named, placeholders

Condition = tuple[str, tuple[str | None, ...]]

_ENTRY_COLUMNS = ", ".join(QUEUE_COLUMNS)
_ORDER = "priority, queued_at, id"

# The planner would use an index on `status` and sort, so each query names its index.
_IN_ORDER = "INDEXED BY agent_jobs_waiting_for_slot"
_RUNNING = "INDEXED BY agent_jobs_running"
_NEEDING_NO_SLOT = "INDEXED BY agent_jobs_needing_no_slot"

# Three ranges are faster than a comparison of row values (measured with 100,000 waiting jobs: 9 ms
# and 16 ms).
_WAITING_BEFORE = f"SELECT count(*) FROM agent_jobs {_IN_ORDER} WHERE {WAITS_FOR_SLOT}"
_COUNT_UP_TO = f"""
    SELECT ({_WAITING_BEFORE} AND priority < ?1)
      + ({_WAITING_BEFORE} AND priority = ?1 AND queued_at < ?2)
      + ({_WAITING_BEFORE} AND priority = ?1 AND queued_at = ?2 AND id <= ?3)
"""


class SqliteJobLists(SqliteAggregate, JobListStore, QueueStore):
    """Pages of jobs, and the queue."""

    @override
    @reading
    def list_jobs(
        self, connection: sqlite3.Connection, where: JobFilter, limit: int, offset: int
    ) -> JobPage:
        scans = _scans(where)
        statement = f"""
            SELECT {DETAILS_COLUMNS} FROM (
              {_merged(condition for condition, _ in scans)}
              ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?
            ) page CROSS JOIN agent_jobs j ON j.rowid = page.row {DETAILS_TABLES}
            ORDER BY j.created_at DESC, j.id DESC
        """
        parameters = [value for _, values in scans for value in values]
        rows = connection.execute(statement, (*parameters, bounded(limit), bounded(offset)))
        return JobPage([details_from_values(values) for values in rows], _total(connection, where))

    @override
    @reading
    def queue_position(self, connection: sqlite3.Connection, job_id: str) -> int:
        place = connection.execute(
            f"SELECT {_ORDER} FROM agent_jobs WHERE id = ? AND {WAITS_FOR_SLOT}",
            (canonical_id(job_id),),
        ).fetchone()
        if place is None:
            return 0
        (position,) = connection.execute(_COUNT_UP_TO, place).fetchone()
        return int(position)

    @override
    @reading
    def first_in_queue(
        self, connection: sqlite3.Connection, exclude: Collection[str]
    ) -> str | None:
        first = connection.execute(
            f"SELECT id FROM agent_jobs {_IN_ORDER} WHERE {WAITS_FOR_SLOT} "
            f"AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY {_ORDER} LIMIT 1",
            (json_list(exclude),),
        ).fetchone()
        return None if first is None else first[0]

    @override
    @reading
    def queue(self, connection: sqlite3.Connection, limit: int) -> Queue:
        return Queue(
            running=_entries(connection, _RUNNING, RUNS, "started_at, id", limit),
            waiting=_entries(connection, _NEEDING_NO_SLOT, NEEDS_NO_SLOT, "queued_at, id", limit),
            queued=_entries(connection, _IN_ORDER, WAITS_FOR_SLOT, _ORDER, limit),
            running_total=_live_total(connection, RUNS),
            waiting_total=_live_total(connection, NEEDS_NO_SLOT),
            queued_total=_live_total(connection, WAITS_FOR_SLOT),
        )


def _merged(conditions: Iterable[str]) -> str:
    return " UNION ALL ".join(
        f"SELECT rowid AS row, created_at, id FROM agent_jobs WHERE {condition}"
        for condition in conditions
    )


def _scans(where: JobFilter) -> list[Condition]:
    """Return one condition per index scan; each index has the order of the page.

    SQLite merges sorted subqueries while it reads them (https://www.sqlite.org/eqp.html, "compound
    queries"). With `status IN (...)` it would sort all matching rows.
    """
    if where.feature_id is not None:
        return [_of_feature(where)]
    client: Condition = ("TRUE", ())
    if where.client_id is not None:
        client = ("client_id = ?", (canonical_id(where.client_id),))
    if where.statuses is None:
        return [client]
    return [
        (f"{client[0]} AND status = ?", (*client[1], status)) for status in sorted(where.statuses)
    ] or [("FALSE", ())]


def _of_feature(where: JobFilter) -> Condition:
    """Return a condition that uses the feature's index; each plus excludes another index."""
    condition = "feature_id = ?"
    parameters = [canonical_id(where.feature_id or "")]
    if where.client_id is not None:
        condition += " AND +client_id = ?"
        parameters.append(canonical_id(where.client_id))
    if where.statuses is not None:
        condition += f" AND +status IN ({placeholders(len(where.statuses))})"
        parameters.extend(sorted(where.statuses))
    return condition, tuple(parameters)


def _total(connection: sqlite3.Connection, where: JobFilter) -> int:
    if where.feature_id is not None:
        condition, parameters = _of_feature(where)
        statement = f"SELECT count(*) FROM agent_jobs WHERE {condition}"
    else:
        scans = _scans(where)
        condition = " OR ".join(f"({part})" for part, _ in scans)
        parameters = tuple(value for _, values in scans for value in values)
        statement = f"SELECT coalesce(sum(jobs), 0) FROM agent_job_counts WHERE {condition}"
    (total,) = connection.execute(statement, parameters).fetchone()
    return int(total)


def _entries(
    connection: sqlite3.Connection, index: str, condition: str, order: str, limit: int
) -> list[QueueEntry]:
    rows = connection.execute(
        f"SELECT {_ENTRY_COLUMNS} FROM agent_jobs {index} "
        f"WHERE {condition} ORDER BY {order} LIMIT ?",
        (bounded(limit),),
    )
    return [queue_entry_from_row(named(QUEUE_COLUMNS, values)) for values in rows]


def _live_total(connection: sqlite3.Connection, condition: str) -> int:
    (total,) = connection.execute(
        f"SELECT coalesce(sum(jobs), 0) FROM agent_job_counts WHERE {condition}"
    ).fetchone()
    return int(total)
