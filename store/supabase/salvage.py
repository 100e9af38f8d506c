"""Undelivered work of ended jobs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from postgrest import ReturnMethod
from typing_extensions import override

from domain.job_details import KeptWork
from store.codec.rows import KEPT_WORK_COLUMNS, kept_work_from_row, kept_work_to_row
from store.codec.values import canonical_id, time_text
from store.protocol import SalvageStore
from store.supabase.connection import IDS_IN_ADDRESS, SupabaseAggregate
from store.supabase.errors import MISSING_REFERENCE, Refusal, translated
from store.supabase.jobs import existing_id, no_such_job

_TABLE = "agent_job_kept_work"


class SupabaseSalvage(SupabaseAggregate, SalvageStore):
    """Undelivered work of ended jobs."""

    @override
    async def keep_work(self, work: KeptWork) -> None:
        row = kept_work_to_row(work) | {"job_id": existing_id(work.job_id)}
        query = self._connection.table(_TABLE).upsert(
            row, on_conflict="job_id", returning=ReturnMethod.minimal
        )
        try:
            await self._connection.send(query)
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise no_such_job(work.job_id) from refused
            raise translated(refused) from refused

    @override
    async def kept_work(self, job_id: str) -> KeptWork | None:
        canonical = canonical_id(job_id)
        if canonical is None:
            return None
        query = self._connection.table(_TABLE).select(*KEPT_WORK_COLUMNS).eq("job_id", canonical)
        rows = await self._connection.rows(query)
        return kept_work_from_row(rows[0]) if rows else None

    @override
    async def forget_work(self, older_than: datetime, exclude: Collection[str]) -> None:
        limit = time_text(older_than)
        old = await self._connection.rows(
            self._connection.table(_TABLE).select("job_id").lt("created_at", limit)
        )
        expired = [row["job_id"] for row in old if row["job_id"] not in exclude]
        for start in range(0, len(expired), IDS_IN_ADDRESS):
            query = self._connection.table(_TABLE).delete(returning=ReturnMethod.minimal)
            some = expired[start : start + IDS_IN_ADDRESS]
            await self._connection.rows(query.in_("job_id", some).lt("created_at", limit))
