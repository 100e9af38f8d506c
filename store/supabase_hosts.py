"""The machines that run jobs, as they last reported."""

from __future__ import annotations

from datetime import datetime

from postgrest import AsyncSelectRequestBuilder, ReturnMethod

from domain.hosts import Host
from store.row_values import column_value, time_text
from store.rows import HOST_COLUMNS, Row, host_from_row, host_to_row
from store.supabase_connection import SupabaseConnection

_TABLE = "agent_hosts"


async def report_host(connection: SupabaseConnection, host: Host) -> None:
    """Insert or replace a report."""
    query = connection.table(_TABLE).upsert(
        host_to_row(host), on_conflict="id,boot_id", returning=ReturnMethod.minimal
    )
    await connection.rows(query)


async def live_hosts(connection: SupabaseConnection, seen_since: datetime) -> list[Host]:
    """Return hosts seen since then, by id, newest report first."""

    def page(read: list[Row]) -> AsyncSelectRequestBuilder:
        query = connection.table(_TABLE).select(*HOST_COLUMNS)
        query = query.gte("last_seen", time_text(seen_since))
        return query.order("id").order("boot_id").offset(len(read))

    hosts = [host_from_row(row) for row in await connection.pages(page)]
    # By text here: its order in Postgres depends on the project's collation.
    return sorted(hosts, key=lambda host: (host.id, -host.last_seen.timestamp(), host.boot_id))


async def remove_host(connection: SupabaseConnection, host_id: str, boot_id: str) -> None:
    """Forget a host's process."""
    query = connection.table(_TABLE).delete(returning=ReturnMethod.minimal)
    await connection.rows(
        query.eq("id", column_value(host_id)).eq("boot_id", column_value(boot_id))
    )


async def forget_hosts(connection: SupabaseConnection, seen_before: datetime) -> None:
    """Forget the hosts whose last report is older."""
    query = connection.table(_TABLE).delete(returning=ReturnMethod.minimal)
    await connection.rows(query.lt("last_seen", time_text(seen_before)))
