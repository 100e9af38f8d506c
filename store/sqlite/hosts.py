"""The machines that run jobs, as they last reported."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from typing_extensions import override

from domain.hosts import Host
from store.codec.rows import HOST_COLUMNS, host_from_row, host_to_row
from store.codec.values import column_value, time_text
from store.protocol import HostStore
from store.sqlite.operations import SqliteAggregate, reading, writing
from store.sqlite.statements import marks, named

_COLUMNS = ", ".join(HOST_COLUMNS)


class SqliteHosts(SqliteAggregate, HostStore):
    """The reports of hosts."""

    @override
    @writing
    def report_host(self, connection: sqlite3.Connection, host: Host) -> None:
        connection.execute(
            f"INSERT OR REPLACE INTO agent_hosts ({_COLUMNS}) VALUES ({marks(len(HOST_COLUMNS))})",
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
    def forget_hosts(self, connection: sqlite3.Connection, seen_before: datetime) -> None:
        connection.execute("DELETE FROM agent_hosts WHERE last_seen < ?", (time_text(seen_before),))
