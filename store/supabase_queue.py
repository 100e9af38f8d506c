"""The queue: who waits for a slot, in which order, and who holds one."""

from __future__ import annotations

from collections.abc import Collection

from domain.job_details import Queue
from store.row_values import canonical_id
from store.rows import queue_entry_from_row
from store.supabase_connection import MAX_INTEGER, SupabaseConnection


async def queue_position(connection: SupabaseConnection, job_id: str) -> int:
    """Return the 1-based place among the jobs that wait for a slot; 0 when it waits for none."""
    known = canonical_id(job_id)
    if known is None:
        return 0
    return int(await connection.call("orchestrator_queue_position", {"job": known}))


async def first_in_queue(connection: SupabaseConnection, beyond: Collection[str]) -> str | None:
    """Return the id of the job whose turn for a slot it is, those in `beyond` left out."""
    known = sorted({found for found in map(canonical_id, beyond) if found is not None})
    first: str | None = await connection.call("orchestrator_first_in_queue", {"beyond": known})
    return first


async def queue(connection: SupabaseConnection, limit: int) -> Queue:
    """Return the live jobs, at most `limit` of each kind, and how many there are of each."""
    entries = min(max(limit, 0), MAX_INTEGER)
    found = await connection.call("orchestrator_queue", {"entries": entries})
    running, waiting, queued = (
        [queue_entry_from_row(row) for row in found[kind]]
        for kind in ("running", "waiting", "queued")
    )
    return Queue(
        running=running,
        waiting=waiting,
        queued=queued,
        running_total=found["running_total"],
        waiting_total=found["waiting_total"],
        queued_total=found["queued_total"],
    )
