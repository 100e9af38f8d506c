"""The queue: who waits for a slot, in which order, and who holds one."""

from __future__ import annotations

from collections.abc import Collection

from typing_extensions import override

from domain.job_details import Queue
from store.codec.rows import queue_entry_from_row
from store.codec.values import canonical_id
from store.protocol import QueueStore
from store.supabase.connection import MAX_INTEGER, SupabaseAggregate


class SupabaseQueue(SupabaseAggregate, QueueStore):
    """The live jobs in the order in which they get slots."""

    @override
    async def queue_position(self, job_id: str) -> int:
        known = canonical_id(job_id)
        if known is None:
            return 0
        return int(await self._connection.call("orchestrator_queue_position", {"job": known}))

    @override
    async def first_in_queue(self, beyond: Collection[str]) -> str | None:
        known = sorted({found for found in map(canonical_id, beyond) if found is not None})
        first: str | None = await self._connection.call(
            "orchestrator_first_in_queue", {"beyond": known}
        )
        return first

    @override
    async def queue(self, limit: int) -> Queue:
        entries = min(max(limit, 0), MAX_INTEGER)
        found = await self._connection.call("orchestrator_queue", {"entries": entries})
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
