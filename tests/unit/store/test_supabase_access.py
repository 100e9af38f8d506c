"""A client with the publishable key, which is public, can read and change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from store.protocol import Store
from store.supabase.store import SupabaseStore
from tests.unit.store.samples import START, a_request, lines, new_world, work_of
from tests.unit.store.supabase.data_api import PUBLISHABLE_KEY
from tests.unit.store.supabase.project import DATABASE, SupabaseProject

FILLED = {
    "clients",
    "agent_jobs",
    "agent_job_messages",
    "agent_job_counts",
    "agent_job_kept_work",
    "agent_credential_holds",
    "agent_idempotency_keys",
}


@pytest.fixture
async def store(supabase_project: SupabaseProject) -> AsyncIterator[Store]:
    await asyncio.to_thread(supabase_project.empty)
    store = SupabaseStore(supabase_project.url, supabase_project.key)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def stranger(supabase_project: SupabaseProject) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"apikey": PUBLISHABLE_KEY, "Authorization": f"Bearer {PUBLISHABLE_KEY}"}
    address = f"{supabase_project.url}/rest/v1"
    async with httpx.AsyncClient(base_url=address, headers=headers) as stranger:
        yield stranger


def listed(project: SupabaseProject, query: str) -> list[str]:
    found = project.server.run(DATABASE, query).split()
    assert found
    return found


async def test_no_table_can_be_read(
    supabase_project: SupabaseProject, store: Store, stranger: httpx.AsyncClient
) -> None:
    world = await new_world(store)
    job = await world.add_job()
    await store.append_messages(job.id, lines(2))
    await store.keep_work(work_of(job))
    await store.hold_credential("credential", START)
    await store.claim_key(a_request())
    tables = listed(supabase_project, "select tablename from pg_tables where schemaname = 'public'")
    assert FILLED <= set(tables)
    for table in FILLED:
        assert supabase_project.server.run(DATABASE, f"select count(*) from {table}") != "0\n"
    for table in tables:
        answer = await stranger.get(f"/{table}")
        assert (answer.status_code, answer.json()) == (200, []), table


async def test_no_table_can_be_written(
    supabase_project: SupabaseProject, store: Store, stranger: httpx.AsyncClient
) -> None:
    world = await new_world(store)
    job = await world.add_job()
    assert (await stranger.post("/clients", json={"name": "x"})).json()["code"] == "42501"
    await stranger.patch(f"/agent_jobs?id=eq.{job.id}", json={"prompt": "other"})
    await stranger.delete(f"/agent_jobs?id=eq.{job.id}")
    assert await world.read(job) == job


async def test_no_function_can_be_called(
    supabase_project: SupabaseProject, stranger: httpx.AsyncClient
) -> None:
    query = """
      select p.oid::regprocedure::oid from pg_proc p
      where p.pronamespace = 'public'::regnamespace and (
        has_function_privilege('anon', p.oid, 'execute')
        or has_function_privilege('authenticated', p.oid, 'execute'))
    """
    assert supabase_project.server.run(DATABASE, query).split() == []
    answer = await stranger.post("/rpc/orchestrator_queue", json={"entries": 5})
    assert answer.json()["code"] == "42501"
    query = "select proname from pg_proc where pronamespace = 'public'::regnamespace"
    assert all(name.startswith("orchestrator_") for name in listed(supabase_project, query))


async def test_functions_have_an_empty_search_path(supabase_project: SupabaseProject) -> None:
    query = """
      select proname from pg_proc where pronamespace = 'public'::regnamespace
        and not coalesce(proconfig, '{}') @> array['search_path=""']
    """
    assert supabase_project.server.run(DATABASE, query).split() == []
