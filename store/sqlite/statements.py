"""Statements and conversions that several tables share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from domain.errors import NotFound
from domain.messages import sanitize_text
from store.codec.rows import Row
from store.codec.values import ColumnValue, canonical_id

MAX_INTEGER = 2**63 - 1
"""SQLite's largest integer. A larger parameter raises OverflowError."""


def insert_new(connection: sqlite3.Connection, table: str, row: Mapping[str, ColumnValue]) -> bool:
    """Insert a row unless its `id` exists. Return whether it was inserted.

    The id is checked first, so a repeated insert violates no other constraint.
    """
    statement = (
        f"INSERT INTO {table} ({', '.join(row)}) SELECT {', '.join(f':{name}' for name in row)} "
        f"WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE id = :id)"
    )
    return connection.execute(statement, _bound(row)).rowcount == 1


def _bound(row: Mapping[str, ColumnValue]) -> dict[str, ColumnValue]:
    return {
        name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()
    }


def exists(connection: sqlite3.Connection, table: str, row_id: str | None) -> bool:
    """Return whether the table has a row with that `id`."""
    found = connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,))
    return found.fetchone() is not None


def existing_job(connection: sqlite3.Connection, job_id: str) -> str:
    """Return the stored form of a job's id.

    Raises:
        NotFound: the job does not exist.
    """
    canonical = canonical_id(job_id)
    if canonical is None or not exists(connection, "agent_jobs", canonical):
        raise NotFound(f"The job {sanitize_text(job_id)[:80]!r} does not exist.")
    return canonical


def named(columns: Sequence[str], values: Sequence[Any]) -> Row:
    """Return a row from its columns and values."""
    return dict(zip(columns, values, strict=True))


def json_value(text: str | None) -> Any:
    """Return the value of a JSON column."""
    return None if text is None else json.loads(text)


def selected(columns: Iterable[str], table: str) -> str:
    """Return the columns for a SELECT, with the table's name or alias."""
    return ", ".join(f"{table}.{name}" for name in columns)


def json_list(texts: Iterable[str]) -> str:
    """Return texts as one parameter for `json_each`, which has no limit on their number."""
    return json.dumps(list(texts))


def bounded(number: int) -> int:
    """Return a limit or offset within SQLite's range. A negative limit would mean no limit."""
    return min(max(number, 0), MAX_INTEGER)


def placeholders(count: int) -> str:
    """Return `count` parameter placeholders, separated by commas."""
    return ", ".join("?" * count)
