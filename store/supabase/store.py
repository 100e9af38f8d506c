"""The store in a Supabase project, through the `supabase` package."""

from __future__ import annotations

import asyncio
import copy

from typing_extensions import override

from store.protocol import Store
from store.supabase.clients import SupabaseClients
from store.supabase.connection import RetryLimits, SupabaseConnection, SupabaseSession
from store.supabase.hosts import SupabaseHosts
from store.supabase.idempotency_keys import SupabaseIdempotencyKeys
from store.supabase.job_lists import SupabaseJobLists
from store.supabase.jobs import SupabaseJobs
from store.supabase.messages import SupabaseMessages
from store.supabase.salvage import SupabaseSalvage


class SupabaseStore(
    SupabaseClients,
    SupabaseJobs,
    SupabaseJobLists,
    SupabaseMessages,
    SupabaseHosts,
    SupabaseSalvage,
    SupabaseIdempotencyKeys,
    Store,
):
    """Stores everything in a Supabase project that has the migrations of `supabase/migrations`.

    A cancelled call may or may not have been executed, as after a lost connection. Repeat it.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        limits: the limits of a request and its retries.
    """

    def __init__(self, url: str, key: str, *, limits: RetryLimits | None = None) -> None:
        limits = limits or RetryLimits()
        self._session = SupabaseSession(url, key, limits)
        self._connection = SupabaseConnection(self._session, limits)
        self._opening = asyncio.Lock()
        self._is_open = False

    @override
    async def open(self) -> None:
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._session.open()
                await self._connection.check_schema()
            except BaseException:
                await asyncio.shield(self._session.close())
                raise
            self._is_open = True

    @override
    async def close(self) -> None:
        self._is_open = False
        await asyncio.shield(self._session.close())

    @override
    def without_retries(self) -> Store:
        once = copy.copy(self)
        once._connection = self._connection.without_retries()
        return once

    @override
    async def ping(self) -> None:
        await self._connection.rows(self._connection.table("agent_hosts").select("id").limit(1))
