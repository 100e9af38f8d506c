"""The machines that run jobs, as they last reported."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from domain.hosts import Host
from store.row_values import column_value, time_text
from store.rows import HOST_COLUMNS, host_from_row, host_to_row
from store.sqlite_rows import marks, named

_COLUMNS = ", ".join(HOST_COLUMNS)


def report_host(connection: sqlite3.Connection, host: Host) -> None:
    """Insert or replace a report."""
    connection.execute(
        f"INSERT OR REPLACE INTO agent_hosts ({_COLUMNS}) VALUES ({marks(len(HOST_COLUMNS))})",
        tuple(host_to_row(host)[name] for name in HOST_COLUMNS),
    )


def live_hosts(connection: sqlite3.Connection, seen_since: datetime) -> list[Host]:
    """Return hosts seen since then, by id, newest report first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM agent_hosts WHERE last_seen >= ? "
        "ORDER BY id, last_seen DESC, boot_id",
        (time_text(seen_since),),
    )
    return [host_from_row(named(HOST_COLUMNS, values)) for values in rows]


def remove_host(connection: sqlite3.Connection, host_id: str, boot_id: str) -> None:
    """Forget a host's process."""
    connection.execute(
        "DELETE FROM agent_hosts WHERE id = ? AND boot_id = ?",
        (column_value(host_id), column_value(boot_id)),
    )


def forget_hosts(connection: sqlite3.Connection, seen_before: datetime) -> None:
    """Forget the hosts whose last report is older."""
    connection.execute("DELETE FROM agent_hosts WHERE last_seen < ?", (time_text(seen_before),))
