"""The store in a Supabase project, through the `supabase` package."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from store.protocol import Store
from store.supabase.clients import SupabaseClients
from store.supabase.connection import RetryLimits, SupabaseConnection
from store.supabase.hosts import SupabaseHosts
from store.supabase.idempotency_keys import SupabaseIdempotencyKeys
from store.supabase.job_lists import SupabaseJobLists
from store.supabase.jobs import SupabaseJobs
from store.supabase.messages import SupabaseMessages
from store.supabase.salvage import SupabaseKeptWork


class SupabaseStore(
    SupabaseClients,
    SupabaseJobs,
    SupabaseJobLists,
    SupabaseMessages,
    SupabaseHosts,
    SupabaseKeptWork,
    SupabaseIdempotencyKeys,
    Store,
):
    """Keeps everything in a Supabase project that has the migrations of `supabase/migrations`.

    Cancelling a call may leave it done or not, as a lost connection would; repeating it is safe.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        patience: how long a call goes on before `DependencyUnavailable`.
    """

    def __init__(self, url: str, key: str, *, patience: RetryLimits | None = None) -> None:
        self._connection = SupabaseConnection(url, key, patience or RetryLimits())
        self._opening = asyncio.Lock()
        self._is_open = False

    @override
    async def open(self) -> None:
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._connection.open()
                await self._connection.check()
            except BaseException:
                await asyncio.shield(self._connection.close())
                raise
            self._is_open = True

    @override
    async def close(self) -> None:
        self._is_open = False
        await asyncio.shield(self._connection.close())

    @override
    async def ping(self) -> None:
        await self._connection.rows(self._connection.table("agent_hosts").select("id").limit(1))
