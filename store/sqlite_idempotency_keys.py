"""The keys by which a repeated request is known, and what was answered to it."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from domain.errors import NotFound
from domain.messages import storable
from store.protocol import KeyedRequest
from store.row_values import column_value, time_text, unchanged_text
from store.rows import KEYED_REQUEST_COLUMNS, claim_to_row, keyed_request_from_row
from store.sqlite_rows import marks, named

_COLUMNS = ", ".join(KEYED_REQUEST_COLUMNS)


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


def release_key(connection: sqlite3.Connection, scope: str, key: str) -> None:
    """Forget a key that has no answer."""
    connection.execute(
        "DELETE FROM agent_idempotency_keys WHERE scope = ? AND key = ? AND answer IS NULL",
        (column_value(scope), column_value(key)),
    )


def forget_keys(connection: sqlite3.Connection, claimed_before: datetime) -> None:
    """Forget the keys claimed before then."""
    connection.execute(
        "DELETE FROM agent_idempotency_keys WHERE created_at < ?", (time_text(claimed_before),)
    )
