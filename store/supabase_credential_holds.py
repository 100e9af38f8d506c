"""Until when no job may start on a credential, because its limit is used up."""

from __future__ import annotations

from datetime import datetime

from store.row_values import column_value, parse_optional_time, time_text
from store.supabase_connection import SupabaseConnection


async def hold_credential(connection: SupabaseConnection, credential: str, until: datetime) -> None:
    """Hold a credential until then, or until the later time that is set already."""
    hold = {"credential": column_value(credential), "held_until": time_text(until)}
    await connection.call("orchestrator_hold_credential", hold)


async def credential_held_until(connection: SupabaseConnection, credential: str) -> datetime | None:
    """Return the time last set, which may be past."""
    name = {"credential": column_value(credential)}
    found: str | None = await connection.call("orchestrator_credential_held_until", name)
    return parse_optional_time(found)
