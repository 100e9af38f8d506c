"""Until when no job may start on a credential, because its limit is used up."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from typing_extensions import override

from store.codec.values import column_value, parse_time, time_text
from store.protocol import CredentialStore
from store.sqlite.operations import SqliteAggregate, reading, writing


class SqliteCredentialHolds(SqliteAggregate, CredentialStore):
    """Credentials whose usage limit is reached."""

    @override
    @writing
    def hold_credential(
        self, connection: sqlite3.Connection, credential: str, until: datetime
    ) -> None:
        connection.execute(
            "INSERT INTO agent_credential_holds (credential, held_until) VALUES (?, ?) "
            "ON CONFLICT (credential) DO UPDATE SET "
            "held_until = max(held_until, excluded.held_until)",
            (column_value(credential), time_text(until)),
        )

    @override
    @reading
    def credential_held_until(
        self, connection: sqlite3.Connection, credential: str
    ) -> datetime | None:
        found = connection.execute(
            "SELECT held_until FROM agent_credential_holds WHERE credential = ?",
            (column_value(credential),),
        ).fetchone()
        return None if found is None else parse_time(found[0])
