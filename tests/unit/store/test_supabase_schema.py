"""The tables of both adapters have the same columns, keys and references."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from domain.errors import DependencyFailed
from store.sqlite.schema import create_schema
from store.supabase.connection import SCHEMA_VERSION
from store.supabase.store import SupabaseStore
from tests.unit.store.supabase.data_api import SECRET_KEY
from tests.unit.store.supabase.project import DATABASE, SupabaseProject

KINDS = {
    "TEXT": {"text", "uuid", "timestamp with time zone", "jsonb"},
    "INTEGER": {"integer", "bigint", "boolean"},
    "REAL": {"double precision"},
    "BLOB": {"text"},
}
"""SQLite type to the equivalent Postgres types. A blob is base64 text in Postgres."""

OTHER_KEYS = {"agent_job_messages": ({"job_id", "id"}, {"id"})}
"""Tables with different keys: in Postgres the id, in SQLite a faster key."""


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        create_schema(connection, Path(":memory:"))
        yield connection


def sqlite_tables(connection: sqlite3.Connection) -> list[str]:
    listing = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(f"{listing} ORDER BY name")]


def ask(project: SupabaseProject, query: str) -> list[dict[str, Any]]:
    script = f"select coalesce(jsonb_agg(found), '[]') from ({query}) found"
    rows = json.loads(project.server.run(DATABASE, script))
    assert isinstance(rows, list)
    return rows


def postgres_columns(project: SupabaseProject) -> dict[str, dict[str, dict[str, Any]]]:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    query = """
      select table_name, column_name, data_type, is_nullable = 'YES' as is_nullable
      from information_schema.columns where table_schema = 'public'
    """
    for row in ask(project, query):
        tables.setdefault(row["table_name"], {})[row["column_name"]] = row
    return tables


def test_tables_and_columns_are_the_same(
    sqlite: sqlite3.Connection, supabase_project: SupabaseProject
) -> None:
    found = postgres_columns(supabase_project)
    assert sorted(found) == sqlite_tables(sqlite)
    for table, columns in found.items():
        own = {row[1]: row for row in sqlite.execute(f"PRAGMA table_info({table})")}
        assert own.keys() == columns.keys(), table
        for name, (_, _, kind, never_null, _, key) in own.items():
            assert columns[name]["data_type"] in KINDS[kind], f"{table}.{name}"
            assert columns[name]["is_nullable"] is not bool(never_null or key), f"{table}.{name}"


def test_keys_are_the_same(sqlite: sqlite3.Connection, supabase_project: SupabaseProject) -> None:
    query = """
      select c.conrelid::regclass::text as table_name, a.attname as column_name
      from pg_constraint c join pg_attribute a
        on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
      where c.contype = 'p' and c.connamespace = 'public'::regnamespace
    """
    found: dict[str, set[str]] = {}
    for row in ask(supabase_project, query):
        found.setdefault(row["table_name"], set()).add(row["column_name"])
    for table in sqlite_tables(sqlite):
        own = {row[1] for row in sqlite.execute(f"PRAGMA table_info({table})") if row[5]}
        assert OTHER_KEYS.get(table, (own, own)) == (own, found[table]), table


def test_references_are_the_same(
    sqlite: sqlite3.Connection, supabase_project: SupabaseProject
) -> None:
    query = """
      select c.conrelid::regclass::text || '.' || a.attname as origin,
        c.confrelid::regclass::text as target,
        case c.confdeltype when 'c' then 'CASCADE' when 'a' then 'NO ACTION' end as on_delete
      from pg_constraint c join pg_attribute a
        on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
      where c.contype = 'f' and c.connamespace = 'public'::regnamespace
    """
    found = {
        row["origin"]: (row["target"], row["on_delete"]) for row in ask(supabase_project, query)
    }
    own = {
        f"{table}.{row[3]}": (row[2], row[6])
        for table in sqlite_tables(sqlite)
        for row in sqlite.execute(f"PRAGMA foreign_key_list({table})")
    }
    assert found == own


async def test_a_project_with_an_older_schema_is_refused(supabase_project: SupabaseProject) -> None:
    server, store = supabase_project.server, SupabaseStore(supabase_project.url, SECRET_KEY)
    definition = server.run(
        DATABASE, "select pg_get_functiondef('public.orchestrator_schema'::regproc)"
    )
    assert f"select {SCHEMA_VERSION} from" in definition
    older = definition.replace(f"select {SCHEMA_VERSION} from", f"select {SCHEMA_VERSION - 1} from")
    server.run(DATABASE, older)
    try:
        with pytest.raises(DependencyFailed, match="supabase db push"):
            await store.open()
    finally:
        server.run(DATABASE, definition)
    await store.open()
    await store.close()
