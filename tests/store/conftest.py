from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from store.protocol import Store
from store.sqlite import SqliteStore
from tests.store.samples import Backend, RawTables, World, new_world


class SqliteTables:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        await asyncio.to_thread(self._insert, table, rows)

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        names = list(rows[0])
        statement = (
            f"INSERT INTO {table} ({', '.join(names)}) "
            f"VALUES ({', '.join(f':{name}' for name in names)})"
        )
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executemany(statement, rows)

    async def select(self, table: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._select, table)

    def _select(self, table: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]


@asynccontextmanager
async def sqlite_backend(directory: Path) -> AsyncIterator[Backend]:
    path = directory / "data" / "orchestrator.db"
    opened: list[Store] = []

    async def connect() -> Store:
        store = SqliteStore(path)
        opened.append(store)
        await store.open()
        return store

    try:
        yield Backend(await connect(), SqliteTables(path), connect)
    finally:
        for store in opened:
            await store.close()


ADAPTERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Backend]]] = {
    "sqlite": sqlite_backend,
}
"""What the contract is checked on; an adapter is added by a line here."""


@pytest.fixture(params=list(ADAPTERS))
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with ADAPTERS[request.param](tmp_path) as backend:
        yield backend


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


@pytest.fixture
def tables(backend: Backend) -> RawTables:
    return backend.tables


@pytest.fixture
def connect(backend: Backend) -> Callable[[], Awaitable[Store]]:
    """Open one more store on the same data, as another process would."""
    return backend.connect


@pytest.fixture
async def world(store: Store) -> World:
    return await new_world(store)
