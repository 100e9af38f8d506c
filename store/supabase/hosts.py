"""The last reports of hosts, and the credentials whose usage limit is reached."""

from __future__ import annotations

from datetime import datetime

from postgrest import AsyncSelectRequestBuilder, ReturnMethod
from typing_extensions import override

from domain.hosts import Host
from store.codec.rows import HOST_COLUMNS, Row, host_from_row, host_to_row
from store.codec.values import column_value, parse_optional_time, time_text
from store.protocol import CredentialStore, HostStore
from store.supabase.connection import SupabaseAggregate

_TABLE = "agent_hosts"


class SupabaseHosts(SupabaseAggregate, HostStore, CredentialStore):
    """The reports of hosts, and the credentials whose usage limit is reached."""

    @override
    async def report_host(self, host: Host) -> None:
        query = self._connection.table(_TABLE).upsert(
            host_to_row(host), on_conflict="id,boot_id", returning=ReturnMethod.minimal
        )
        await self._connection.rows(query)

    @override
    async def live_hosts(self, seen_since: datetime) -> list[Host]:
        def page(read: list[Row]) -> AsyncSelectRequestBuilder:
            query = self._connection.table(_TABLE).select(*HOST_COLUMNS)
            query = query.gte("last_seen", time_text(seen_since))
            return query.order("id").order("boot_id").offset(len(read))

        hosts = [host_from_row(row) for row in await self._connection.pages(page)]
        # By text here: its order in Postgres depends on the project's collation.
        return sorted(hosts, key=lambda host: (host.id, -host.last_seen.timestamp(), host.boot_id))

    @override
    async def remove_host(self, host_id: str, boot_id: str) -> None:
        query = self._connection.table(_TABLE).delete(returning=ReturnMethod.minimal)
        await self._connection.rows(
            query.eq("id", column_value(host_id)).eq("boot_id", column_value(boot_id))
        )

    @override
    async def forget_hosts(self, older_than: datetime) -> None:
        query = self._connection.table(_TABLE).delete(returning=ReturnMethod.minimal)
        await self._connection.rows(query.lt("last_seen", time_text(older_than)))

    @override
    async def hold_credential(self, credential: str, until: datetime) -> None:
        hold = {"credential": column_value(credential), "held_until": time_text(until)}
        await self._connection.call("orchestrator_hold_credential", hold)

    @override
    async def credential_held_until(self, credential: str) -> datetime | None:
        name = {"credential": column_value(credential)}
        found: str | None = await self._connection.call("orchestrator_credential_held_until", name)
        return parse_optional_time(found)
