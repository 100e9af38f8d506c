"""Pages of jobs, newest first, whose cost does not grow with the number of jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from typing_extensions import override

from domain.job_details import JobFilter, JobPage
from store.codec.values import canonical_id
from store.protocol import JobListStore
from store.sqlite.jobs import DETAILS_COLUMNS, DETAILS_TABLES, details_from_values
from store.sqlite.operations import SqliteAggregate, reading
from store.sqlite.statements import bounded, marks

Condition = tuple[str, tuple[str | None, ...]]


class SqliteJobLists(SqliteAggregate, JobListStore):
    """Pages of jobs."""

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


def _merged(conditions: Iterable[str]) -> str:
    return " UNION ALL ".join(
        f"SELECT rowid AS row, created_at, id FROM agent_jobs WHERE {condition}"
        for condition in conditions
    )


def _scans(where: JobFilter) -> list[Condition]:
    """Return conditions that each match an index in the page's order.

    SQLite merges ordered parts as it reads them (https://www.sqlite.org/eqp.html, "compound
    queries"), whereas `status IN (...)` would have it sort all that match.
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
    """Return the condition that walks the feature's index; a plus keeps SQLite from another."""
    condition = "feature_id = ?"
    parameters = [canonical_id(where.feature_id or "")]
    if where.client_id is not None:
        condition += " AND +client_id = ?"
        parameters.append(canonical_id(where.client_id))
    if where.statuses is not None:
        condition += f" AND +status IN ({marks(len(where.statuses))})"
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
