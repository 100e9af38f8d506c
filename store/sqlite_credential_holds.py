"""Until when no job may start on a credential, because its limit is used up."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from store.row_values import column_value, parse_time, time_text


def hold_credential(connection: sqlite3.Connection, credential: str, until: datetime) -> None:
    """Hold a credential until then, or until the later time that is set already."""
    connection.execute(
        "INSERT INTO agent_credential_holds (credential, held_until) VALUES (?, ?) "
        "ON CONFLICT (credential) DO UPDATE SET held_until = max(held_until, excluded.held_until)",
        (column_value(credential), time_text(until)),
    )


def credential_held_until(connection: sqlite3.Connection, credential: str) -> datetime | None:
    """Return the time last set, which may be past."""
    found = connection.execute(
        "SELECT held_until FROM agent_credential_holds WHERE credential = ?",
        (column_value(credential),),
    ).fetchone()
    return None if found is None else parse_time(found[0])
