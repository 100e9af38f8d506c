"""The queue: who waits for a slot, in which order, and who holds one."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from typing_extensions import override

from domain.job_details import Queue, QueueEntry
from store.codec.rows import QUEUE_COLUMNS, queue_entry_from_row
from store.codec.values import canonical_id
from store.protocol import QueueStore
from store.sqlite.operations import SqliteAggregate, reading
from store.sqlite.schema import NEEDS_NO_SLOT, RUNS, WAITS_FOR_SLOT
from store.sqlite.statements import bounded, json_list, named

_COLUMNS = ", ".join(QUEUE_COLUMNS)
_ORDER = "priority, queued_at, id"

# Named, because the planner would take an index on `status` alone and sort.
_IN_ORDER = "INDEXED BY agent_jobs_waiting_for_slot"
_RUNNING = "INDEXED BY agent_jobs_running"
_NEEDING_NO_SLOT = "INDEXED BY agent_jobs_needing_no_slot"

# Three ranges, because SQLite is slower at comparing the three columns as one value (measured with
# 100,000 waiting jobs: 9 ms against 16).
_WAITING_BEFORE = f"SELECT count(*) FROM agent_jobs {_IN_ORDER} WHERE {WAITS_FOR_SLOT}"
_COUNT_UP_TO = f"""
    SELECT ({_WAITING_BEFORE} AND priority < ?1)
      + ({_WAITING_BEFORE} AND priority = ?1 AND queued_at < ?2)
      + ({_WAITING_BEFORE} AND priority = ?1 AND queued_at = ?2 AND id <= ?3)
"""


class SqliteQueue(SqliteAggregate, QueueStore):
    """The live jobs in the order in which they get slots."""

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
    def first_in_queue(self, connection: sqlite3.Connection, beyond: Collection[str]) -> str | None:
        first = connection.execute(
            f"SELECT id FROM agent_jobs {_IN_ORDER} WHERE {WAITS_FOR_SLOT} "
            f"AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY {_ORDER} LIMIT 1",
            (json_list(beyond),),
        ).fetchone()
        return None if first is None else first[0]

    @override
    @reading
    def queue(self, connection: sqlite3.Connection, limit: int) -> Queue:
        return Queue(
            running=_entries(connection, _RUNNING, RUNS, "started_at, id", limit),
            waiting=_entries(connection, _NEEDING_NO_SLOT, NEEDS_NO_SLOT, "queued_at, id", limit),
            queued=_entries(connection, _IN_ORDER, WAITS_FOR_SLOT, _ORDER, limit),
            running_total=_total(connection, RUNS),
            waiting_total=_total(connection, NEEDS_NO_SLOT),
            queued_total=_total(connection, WAITS_FOR_SLOT),
        )


def _entries(
    connection: sqlite3.Connection, index: str, condition: str, order: str, limit: int
) -> list[QueueEntry]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM agent_jobs {index} WHERE {condition} ORDER BY {order} LIMIT ?",
        (bounded(limit),),
    )
    return [queue_entry_from_row(named(QUEUE_COLUMNS, values)) for values in rows]


def _total(connection: sqlite3.Connection, condition: str) -> int:
    (total,) = connection.execute(
        f"SELECT coalesce(sum(jobs), 0) FROM agent_job_counts WHERE {condition}"
    ).fetchone()
    return int(total)
