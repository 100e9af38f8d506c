"""Work of ended jobs that was not delivered."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from postgrest import ReturnMethod

from domain.job_details import KeptWork
from store.row_values import canonical_id, time_text
from store.rows import KEPT_WORK_COLUMNS, kept_work_from_row, kept_work_to_row
from store.supabase_connection import SupabaseConnection
from store.supabase_errors import MISSING_REFERENCE, Refusal, translated
from store.supabase_jobs import existing_id, no_such_job

_TABLE = "agent_job_kept_work"

_IDS_IN_A_REQUEST = 100
"""They are in its address, which proxies take up to some 8 KB of."""


async def keep_work(connection: SupabaseConnection, work: KeptWork) -> None:
    """Keep work in place of what was kept for its job before.

    Raises:
        InvalidRequest: the patch cannot be kept as it is.
        NotFound: no such job.
    """
    row = kept_work_to_row(work) | {"job_id": existing_id(work.job_id)}
    query = connection.table(_TABLE).upsert(
        row, on_conflict="job_id", returning=ReturnMethod.minimal
    )
    try:
        await connection.attempt(query)
    except Refusal as refused:
        if refused.code == MISSING_REFERENCE:
            raise no_such_job(work.job_id) from refused
        raise translated(refused) from refused


async def kept_work(connection: SupabaseConnection, job_id: str) -> KeptWork | None:
    """Return a job's undelivered work."""
    known = canonical_id(job_id)
    if known is None:
        return None
    query = connection.table(_TABLE).select(*KEPT_WORK_COLUMNS).eq("job_id", known)
    rows = await connection.rows(query)
    return kept_work_from_row(rows[0]) if rows else None


async def forget_work(
    connection: SupabaseConnection, kept_before: datetime, spared: Collection[str]
) -> None:
    """Forget the work that was kept before then, but not that of the jobs in `spared`."""
    limit = time_text(kept_before)
    old = await connection.rows(connection.table(_TABLE).select("job_id").lt("created_at", limit))
    expired = [row["job_id"] for row in old if row["job_id"] not in spared]
    for start in range(0, len(expired), _IDS_IN_A_REQUEST):
        query = connection.table(_TABLE).delete(returning=ReturnMethod.minimal)
        some = expired[start : start + _IDS_IN_A_REQUEST]
        await connection.rows(query.in_("job_id", some).lt("created_at", limit))
