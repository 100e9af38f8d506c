"""Pages of jobs, newest first."""

from __future__ import annotations

import asyncio
from typing import Any

from postgrest import AsyncSelectRequestBuilder

from store.protocol import JobFilter, JobPage
from store.row_values import canonical_id
from store.rows import Row
from store.supabase_connection import MAX_INTEGER, SupabaseConnection
from store.supabase_jobs import DETAILS_COLUMNS, TABLE, details_from_row


async def list_jobs(
    connection: SupabaseConnection, where: JobFilter, limit: int, offset: int
) -> JobPage:
    """Return a page, newest first, and the number of all that match."""
    wanted = {
        "client": where.client_id and canonical_id(where.client_id),
        "feature": where.feature_id and canonical_id(where.feature_id),
        "statuses": None if where.statuses is None else sorted(where.statuses),
    }
    if _matches_nothing(where, wanted):
        return JobPage([], 0)
    start = min(max(offset, 0), MAX_INTEGER)

    def page(read: list[Row], size: int) -> AsyncSelectRequestBuilder:
        query = _matching(connection, wanted).order("created_at", desc=True).order("id", desc=True)
        return query.offset(start + len(read))

    rows, total = await asyncio.gather(
        connection.pages(page, limit), connection.call("orchestrator_count_jobs", wanted)
    )
    return JobPage([details_from_row(row) for row in rows], int(total))


def _matches_nothing(where: JobFilter, wanted: dict[str, Any]) -> bool:
    """Tell whether a filter asks for no status, or by an id that is none."""
    ids = ((where.client_id, wanted["client"]), (where.feature_id, wanted["feature"]))
    return wanted["statuses"] == [] or any(given is not None and not known for given, known in ids)


def _matching(connection: SupabaseConnection, wanted: dict[str, Any]) -> AsyncSelectRequestBuilder:
    query = connection.table(TABLE).select(*DETAILS_COLUMNS)
    if wanted["client"] is not None:
        query = query.eq("client_id", wanted["client"])
    if wanted["feature"] is not None:
        query = query.eq("feature_id", wanted["feature"])
    if wanted["statuses"] is not None:
        query = query.in_("status", wanted["statuses"])
    return query
