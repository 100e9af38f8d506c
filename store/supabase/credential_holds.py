"""Until when no job may start on a credential, because its limit is used up."""

from __future__ import annotations

from datetime import datetime

from typing_extensions import override

from store.codec.values import column_value, parse_optional_time, time_text
from store.protocol import CredentialStore
from store.supabase.connection import SupabaseAggregate


class SupabaseCredentialHolds(SupabaseAggregate, CredentialStore):
    """Credentials whose usage limit is reached."""

    @override
    async def hold_credential(self, credential: str, until: datetime) -> None:
        hold = {"credential": column_value(credential), "held_until": time_text(until)}
        await self._connection.call("orchestrator_hold_credential", hold)

    @override
    async def credential_held_until(self, credential: str) -> datetime | None:
        name = {"credential": column_value(credential)}
        found: str | None = await self._connection.call("orchestrator_credential_held_until", name)
        return parse_optional_time(found)
