from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from store.protocol import Store
from store.sqlite.store import SqliteStore
from tests.unit.store.samples import Backend, RawTables, World, new_world
from tests.unit.store.supabase.installation import IS_REQUIRED, NotInstalled, install
from tests.unit.store.supabase.project import SupabaseProject, running_project


class SqliteTables:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        await asyncio.to_thread(self._insert, table, rows)

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        names = list(rows[0])
        values = [{name: as_text(value) for name, value in row.items()} for row in rows]
        statement = (
            f"INSERT INTO {table} ({', '.join(names)}) "
            f"VALUES ({', '.join(f':{name}' for name in names)})"
        )
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executemany(statement, values)

    async def select(self, table: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._select, table)

    def _select(self, table: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]


def as_text(value: Any) -> Any:
    """Return JSON as text and other values unchanged."""
    return json.dumps(value) if isinstance(value, dict) else value


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


@asynccontextmanager
async def supabase_backend(project: SupabaseProject) -> AsyncIterator[Backend]:
    # Imported here, because the import is slow and tests of the other adapter do not need it.
    from store.supabase.store import SupabaseStore

    opened: list[Store] = []

    async def connect() -> Store:
        store = SupabaseStore(project.url, project.key)
        opened.append(store)
        await store.open()
        return store

    await asyncio.to_thread(project.empty)
    try:
        yield Backend(await connect(), project.tables, connect)
    finally:
        for store in opened:
            await store.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests against a Supabase project, so that `make test-unit` can leave them out."""
    for item in items:
        if _needs_supabase(item):
            item.add_marker("supabase")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install the npm packages before the first test, whose time limit may be shorter."""
    collects_only = session.config.getoption("collectonly")
    if not collects_only and any(_needs_supabase(item) for item in session.items):
        with suppress(NotInstalled):
            install()


def _needs_supabase(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    return "supabase_project" in getattr(item, "fixturenames", ()) or (
        call is not None and call.params.get("backend") == "supabase"
    )


@pytest.fixture(scope="session")
def supabase_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupabaseProject]:
    """One project for all tests of this process; empty it before use."""
    try:
        install()
    except NotInstalled as reason:
        if IS_REQUIRED:
            pytest.fail(f"REQUIRE_SUPABASE is set, but: {reason}")
        pytest.skip(f"Nothing was checked against Supabase. {reason}")
    with running_project(tmp_path_factory.mktemp("supabase")) as project:
        yield project


@pytest.fixture(params=["sqlite", "supabase"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    adapter = (
        sqlite_backend(tmp_path)
        if request.param == "sqlite"
        else supabase_backend(request.getfixturevalue("supabase_project"))
    )
    async with adapter as backend:
        yield backend


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


@pytest.fixture
def tables(backend: Backend) -> RawTables:
    return backend.tables


@pytest.fixture
def connect(backend: Backend) -> Callable[[], Awaitable[Store]]:
    """Open another store on the same data, as another process would."""
    return backend.connect


@pytest.fixture
async def world(store: Store) -> World:
    return await new_world(store)
