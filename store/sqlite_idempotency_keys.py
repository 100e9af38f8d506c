"""The keys by which a repeated request is known, and what was answered to it."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from domain.errors import NotFound
from domain.keyed_requests import KeyedRequest
from domain.messages import storable
from store.row_values import (
    ColumnValue,
    canonical_id,
    column_value,
    time_text,
    unchanged_text,
)
from store.rows import KEYED_REQUEST_COLUMNS, claim_to_row, keyed_request_from_row
from store.sqlite_rows import marks, named

_COLUMNS = ", ".join(KEYED_REQUEST_COLUMNS)
_IS_UNANSWERED_CLAIM = "scope = ? AND key = ? AND resource_id = ? AND answer IS NULL"


def claim_key(connection: sqlite3.Connection, request: KeyedRequest) -> KeyedRequest:
    """Insert what a key stands for, or leave it; return what it stands for now.

    Raises:
        InvalidRequest: the resource's id is no UUID.
    """
    row = claim_to_row(request)
    # The update changes nothing; without it, a row that is there would not be returned.
    values = connection.execute(
        f"INSERT INTO agent_idempotency_keys ({', '.join(row)}) VALUES ({marks(len(row))}) "
        f"ON CONFLICT (scope, key) DO UPDATE SET scope = excluded.scope RETURNING {_COLUMNS}",
        tuple(row.values()),
    ).fetchone()
    return keyed_request_from_row(named(KEYED_REQUEST_COLUMNS, values))


def answer_key(
    connection: sqlite3.Connection, scope: str, key: str, status: int, answer: str
) -> KeyedRequest:
    """Set the answer of a key unless it has one; return what the key stands for now.

    Raises:
        InvalidRequest: the answer cannot be kept as it is.
        NotFound: the key was not claimed, or was released.
    """
    values = connection.execute(
        "UPDATE agent_idempotency_keys SET "
        "status = CASE WHEN answer IS NULL THEN ? ELSE status END, answer = coalesce(answer, ?) "
        f"WHERE scope = ? AND key = ? RETURNING {_COLUMNS}",
        (status, unchanged_text(answer, "answer"), column_value(scope), column_value(key)),
    ).fetchone()
    if values is None:
        raise NotFound(
            f"The idempotency key {storable(key)[:80]!r} is not claimed. Send the request again."
        )
    return keyed_request_from_row(named(KEYED_REQUEST_COLUMNS, values))


def share_key(connection: sqlite3.Connection, scope: str, key: str, resource_id: str) -> bool:
    """Share a claim that has no answer, so that it is not released; return whether it is there."""
    shared = connection.execute(
        f"UPDATE agent_idempotency_keys SET shared = 1 WHERE {_IS_UNANSWERED_CLAIM}",
        _claim(scope, key, resource_id),
    )
    return shared.rowcount == 1


def release_key(connection: sqlite3.Connection, scope: str, key: str, resource_id: str) -> None:
    """Forget a claim that has no answer and is not shared."""
    connection.execute(
        f"DELETE FROM agent_idempotency_keys WHERE {_IS_UNANSWERED_CLAIM} AND NOT shared",
        _claim(scope, key, resource_id),
    )


def forget_keys(connection: sqlite3.Connection, claimed_before: datetime) -> None:
    """Forget the keys claimed before then."""
    connection.execute(
        "DELETE FROM agent_idempotency_keys WHERE created_at < ?", (time_text(claimed_before),)
    )


def _claim(scope: str, key: str, resource_id: str) -> tuple[ColumnValue, ...]:
    return column_value(scope), column_value(key), canonical_id(resource_id)
