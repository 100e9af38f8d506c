"""Statements that are the same for every table of the SQLite store."""

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
"""SQLite's largest integer; binding a greater one raises OverflowError."""


def insert_new(connection: sqlite3.Connection, table: str, row: Mapping[str, ColumnValue]) -> bool:
    """Insert a row unless one with its `id` is there; return whether it was inserted.

    A repeat is recognised before any other rule is applied, so it cannot break one.
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
    """Tell whether the table has that `id`; None is no id."""
    found = connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,))
    return found.fetchone() is not None


def existing_job(connection: sqlite3.Connection, job_id: str) -> str:
    """Return the id of a job as it is stored.

    Raises:
        NotFound: no such job.
    """
    known = canonical_id(job_id)
    if known is None or not exists(connection, "agent_jobs", known):
        raise NotFound(f"There is no job {sanitize_text(job_id)[:80]!r}.")
    return known


def named(columns: Sequence[str], values: Sequence[Any]) -> Row:
    """Return a row that was selected as these columns."""
    return dict(zip(columns, values, strict=True))


def json_value(text: str | None) -> Any:
    """Return what a column of JSON holds."""
    return None if text is None else json.loads(text)


def selected(columns: Iterable[str], table: str) -> str:
    """Return the columns for a SELECT, each with its table's name or alias."""
    return ", ".join(f"{table}.{name}" for name in columns)


def json_list(texts: Iterable[str]) -> str:
    """Return texts as the argument of `json_each`, which takes any number of them."""
    return json.dumps(list(texts))


def bounded(number: int) -> int:
    """Return a count or offset as SQLite takes it: not negative, which would mean no limit."""
    return min(max(number, 0), MAX_INTEGER)


def marks(count: int) -> str:
    """Return so many parameter marks, with commas."""
    return ", ".join("?" * count)
