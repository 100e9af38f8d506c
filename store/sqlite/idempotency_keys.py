"""Idempotency keys: the keys of clients' requests, and the responses."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from typing_extensions import override

from domain.errors import NotFound
from domain.keyed_requests import KeyedRequest
from domain.messages import sanitize_text
from store.codec.rows import KEYED_REQUEST_COLUMNS, claim_to_row, keyed_request_from_row
from store.codec.values import (
    ColumnValue,
    canonical_id,
    column_value,
    require_storable,
    time_text,
)
from store.protocol import KeyStore
from store.sqlite.connections import SqliteAggregate, writing
from store.sqlite.statements import named, placeholders

_COLUMNS = ", ".join(KEYED_REQUEST_COLUMNS)
_IS_UNANSWERED_CLAIM = "scope = ? AND key = ? AND resource_id = ? AND answer IS NULL"


class SqliteIdempotencyKeys(SqliteAggregate, KeyStore):
    """Idempotency keys of clients' requests."""

    @override
    @writing
    def claim_key(self, connection: sqlite3.Connection, request: KeyedRequest) -> KeyedRequest:
        row = claim_to_row(request)
        # The update changes nothing, but without it RETURNING would skip an existing row.
        values = connection.execute(
            f"INSERT INTO agent_idempotency_keys ({', '.join(row)}) "
            f"VALUES ({placeholders(len(row))}) "
            f"ON CONFLICT (scope, key) DO UPDATE SET scope = excluded.scope RETURNING {_COLUMNS}",
            tuple(row.values()),
        ).fetchone()
        return keyed_request_from_row(named(KEYED_REQUEST_COLUMNS, values))

    @override
    @writing
    def answer_key(
        self, connection: sqlite3.Connection, scope: str, key: str, status: int, answer: str
    ) -> KeyedRequest:
        values = connection.execute(
            "UPDATE agent_idempotency_keys SET "
            "status = CASE WHEN answer IS NULL THEN ? ELSE status END, "
            "answer = coalesce(answer, ?) "
            f"WHERE scope = ? AND key = ? RETURNING {_COLUMNS}",
            (status, require_storable(answer, "answer"), column_value(scope), column_value(key)),
        ).fetchone()
        if values is None:
            raise NotFound(
                f"The idempotency key {sanitize_text(key)[:80]!r} is not claimed. Send the request "
                "again."
            )
        return keyed_request_from_row(named(KEYED_REQUEST_COLUMNS, values))

    @override
    @writing
    def share_key(
        self, connection: sqlite3.Connection, scope: str, key: str, resource_id: str
    ) -> bool:
        shared = connection.execute(
            f"UPDATE agent_idempotency_keys SET shared = 1 WHERE {_IS_UNANSWERED_CLAIM}",
            _claim(scope, key, resource_id),
        )
        return shared.rowcount == 1

    @override
    @writing
    def release_key(
        self, connection: sqlite3.Connection, scope: str, key: str, resource_id: str
    ) -> None:
        connection.execute(
            f"DELETE FROM agent_idempotency_keys WHERE {_IS_UNANSWERED_CLAIM} AND NOT shared",
            _claim(scope, key, resource_id),
        )

    @override
    @writing
    def forget_keys(self, connection: sqlite3.Connection, older_than: datetime) -> None:
        connection.execute(
            "DELETE FROM agent_idempotency_keys WHERE created_at < ?", (time_text(older_than),)
        )


def _claim(scope: str, key: str, resource_id: str) -> tuple[ColumnValue, ...]:
    return column_value(scope), column_value(key), canonical_id(resource_id)
