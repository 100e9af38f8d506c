"""The last reports of hosts, and the credentials whose usage limit is reached."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from typing_extensions import override

from domain.hosts import Host
from store.codec.rows import HOST_COLUMNS, host_from_row, host_to_row
from store.codec.values import column_value, parse_time, time_text
from store.protocol import CredentialStore, HostStore
from store.sqlite.connections import SqliteAggregate, reading, writing
from store.sqlite.statements import named, placeholders

_COLUMNS = ", ".join(HOST_COLUMNS)


class SqliteHosts(SqliteAggregate, HostStore, CredentialStore):
    """The reports of hosts, and the credentials whose usage limit is reached."""

    @override
    @writing
    def report_host(self, connection: sqlite3.Connection, host: Host) -> None:
        connection.execute(
            f"INSERT OR REPLACE INTO agent_hosts ({_COLUMNS}) "
            f"VALUES ({placeholders(len(HOST_COLUMNS))})",
            tuple(host_to_row(host)[name] for name in HOST_COLUMNS),
        )

    @override
    @reading
    def live_hosts(self, connection: sqlite3.Connection, seen_since: datetime) -> list[Host]:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM agent_hosts WHERE last_seen >= ? "
            "ORDER BY id, last_seen DESC, boot_id",
            (time_text(seen_since),),
        )
        return [host_from_row(named(HOST_COLUMNS, values)) for values in rows]

    @override
    @writing
    def remove_host(self, connection: sqlite3.Connection, host_id: str, boot_id: str) -> None:
        connection.execute(
            "DELETE FROM agent_hosts WHERE id = ? AND boot_id = ?",
            (column_value(host_id), column_value(boot_id)),
        )

    @override
    @writing
    def forget_hosts(self, connection: sqlite3.Connection, older_than: datetime) -> None:
        connection.execute("DELETE FROM agent_hosts WHERE last_seen < ?", (time_text(older_than),))

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
