"""The embedded store: one SQLite file, which several processes may use concurrently."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typing_extensions import override

from store.protocol import Store
from store.sqlite.clients import SqliteClients
from store.sqlite.connections import SqliteConnections
from store.sqlite.hosts import SqliteHosts
from store.sqlite.idempotency_keys import SqliteIdempotencyKeys
from store.sqlite.job_lists import SqliteJobLists
from store.sqlite.jobs import SqliteJobs
from store.sqlite.messages import SqliteMessages
from store.sqlite.salvage import SqliteSalvage

BUSY_SECONDS = 10.0
"""How long a write waits for other processes, whose writes take milliseconds."""


class SqliteStore(
    SqliteClients,
    SqliteJobs,
    SqliteJobLists,
    SqliteMessages,
    SqliteHosts,
    SqliteSalvage,
    SqliteIdempotencyKeys,
    Store,
):
    """Stores everything in one file, which only this user may read.

    A cancelled call is executed completely or not at all.

    Args:
        path: the database file, on a local disk.
        busy_seconds: how long a write waits for other processes before `DependencyUnavailable`.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._opening = asyncio.Lock()
        self._connections: SqliteConnections | None = None

    @override
    async def open(self) -> None:
        async with self._opening:
            if self._connections is not None:
                return
            connections = SqliteConnections(self._path, self._busy_seconds)
            try:
                await connections.prepare()
            except BaseException:
                await asyncio.shield(connections.close())
                raise
            self._connections = connections

    @override
    async def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            await asyncio.shield(connections.close())

    @override
    def without_retries(self) -> Store:
        return self

    @override
    async def ping(self) -> None:
        await self._opened.check()
