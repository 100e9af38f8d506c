"""A local Supabase project: a migrated Postgres and the data API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.unit.store.supabase.data_api import SECRET_KEY, DataApi
from tests.unit.store.supabase.postgres_server import PostgresServer

DATABASE = "postgres"


class SupabaseTables:
    """The tables of a database, accessed as its owner."""

    def __init__(self, server: PostgresServer, database: str = DATABASE) -> None:
        self._server = server
        self._database = database

    async def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = ", ".join(rows[0])
        script = (
            f"insert into {table} ({columns}) select {columns} "
            f"from jsonb_populate_recordset(null::{table}, {literal(json.dumps(list(rows)))})"
        )
        await asyncio.to_thread(self._server.run, self._database, script)

    async def select(self, table: str) -> list[dict[str, Any]]:
        script = f"select coalesce(jsonb_agg(t order by t.id), '[]') from {table} t"
        rows = json.loads(await asyncio.to_thread(self._server.run, self._database, script))
        assert isinstance(rows, list)
        return rows


def literal(text: str) -> str:
    """Return the text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


class SupabaseProject:
    """A running project: its URL, its key and its tables."""

    key = SECRET_KEY

    def __init__(self, server: PostgresServer, api: DataApi) -> None:
        self.server = server
        self.url = api.url
        self.tables = SupabaseTables(server)

    def empty(self) -> None:
        """Delete all rows."""
        self.server.run(DATABASE, _EMPTY)


_EMPTY = """
do $$
begin
  execute (
    select 'truncate ' || string_agg(format('public.%I', tablename), ', ')
    from pg_tables where schemaname = 'public'
  );
end
$$
"""


@contextmanager
def running_project(work: Path) -> Iterator[SupabaseProject]:
    server = PostgresServer(work)
    try:
        server.push(DATABASE)
        api = DataApi(server.address(DATABASE), work / "api")
        try:
            yield SupabaseProject(server, api)
        finally:
            api.stop()
    finally:
        server.stop()
