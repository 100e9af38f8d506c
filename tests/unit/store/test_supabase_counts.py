"""Totals are correct after concurrent writes, and the cost of reads does not grow."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.jobs import Job, JobStatus, Phase
from store.protocol import Guard, JobChanges, Store
from store.supabase.store import SupabaseStore
from tests.unit.store.samples import World, new_id, new_world
from tests.unit.store.supabase.project import DATABASE, SupabaseProject

ANY = Guard(frozenset(JobStatus))

TRUTH = """
  select coalesce(jsonb_object_agg(key, jobs), '{}') from (
    select client_id || status || coalesce(phase, '') as key, count(*) as jobs
    from agent_jobs group by 1
  ) found
"""
KEPT = """
  select coalesce(jsonb_object_agg(client_id || status || phase, jobs), '{}')
  from agent_job_counts where jobs <> 0
"""

CHANGES: list[JobChanges] = [
    {"status": JobStatus.QUEUED, "phase": Phase.WAITING_FOR_SLOT},
    {"status": JobStatus.RUNNING, "phase": Phase.WORKING},
    {"status": JobStatus.RUNNING, "phase": Phase.WAITING_FOR_USER},
    {"status": JobStatus.FAILED, "phase": None},
]


@pytest.fixture
async def store(supabase_project: SupabaseProject) -> AsyncIterator[Store]:
    await asyncio.to_thread(supabase_project.empty)
    store = SupabaseStore(supabase_project.url, supabase_project.key)
    await store.open()
    yield store
    await store.close()


async def ask(project: SupabaseProject, query: str) -> Any:
    return json.loads(await asyncio.to_thread(project.server.run, DATABASE, query))


async def test_totals_are_correct_after_concurrent_changes(
    supabase_project: SupabaseProject, store: Store
) -> None:
    worlds = [await new_world(store) for _ in range(2)]

    async def live(world: World, seed: int) -> None:
        draw = random.Random(seed)
        job = await world.add_job()
        for _ in range(20):
            assert await store.update_job(job.id, draw.choice(CHANGES), ANY)

    await asyncio.gather(*(live(worlds[seed % 2], seed) for seed in range(12)))
    truth = await ask(supabase_project, TRUTH)
    assert sum(truth.values()) == 12
    assert await ask(supabase_project, KEPT) == truth


async def test_totals_follow_statements_that_change_many_rows(
    supabase_project: SupabaseProject, store: Store
) -> None:
    world = await new_world(store)
    other = await new_world(store)
    for number in range(9):
        await (other if number % 3 else world).add_job()
    for script in (
        "update agent_jobs set status = 'running', phase = 'working' where id::text < '8'",
        f"update agent_jobs set client_id = '{world.client.id}'",
        "delete from agent_jobs where id::text > 'c'",
        "update agent_jobs set title = 'same'",
        "delete from agent_jobs",
    ):
        await asyncio.to_thread(supabase_project.server.run, DATABASE, script)
        assert await ask(supabase_project, KEPT) == await ask(supabase_project, TRUTH)


READS = {
    "queue": "orchestrator_queue(20)",
    "first": "orchestrator_first_in_queue(array[]::uuid[])",
    "total": "orchestrator_count_jobs(array['queued', 'failed'])",
    "position": "orchestrator_queue_position('{first}')",
    "repository": "orchestrator_find_repository('ACME', 'shop')",
}


async def test_the_cost_of_reads_does_not_grow_with_the_number_of_rows(
    supabase_project: SupabaseProject, store: Store
) -> None:
    world = await new_world(store)
    first = await world.add_job(priority=1)
    small = await buffers_of_reads(supabase_project, world, first, 200)
    large = await buffers_of_reads(supabase_project, world, first, 6000)
    for name, buffers in large.items():
        assert buffers <= small[name] + 20, name


async def buffers_of_reads(
    project: SupabaseProject, world: World, first: Job, jobs: int
) -> dict[str, int]:
    """Add jobs, half of them waiting, and return the number of pages that each read uses."""
    script = f"""
      insert into agent_jobs (client_id, prompt, branch_name, status, phase, queued_at)
      select '{world.client.id}', 'p', gen_random_uuid(),
        case when number % 2 = 0 then 'queued' else 'failed' end,
        case when number % 2 = 0 then 'waiting_for_slot' end, now()
      from generate_series(1, {jobs}) number;
      vacuum analyze agent_jobs;
    """
    await asyncio.to_thread(project.server.run, DATABASE, script)
    return {
        name: await buffers(project, call.format(first=first.id)) for name, call in READS.items()
    }


async def buffers(project: SupabaseProject, call: str) -> int:
    """Return the number of pages of the second call, which has a cached plan."""
    explain = f"explain (analyze, buffers, format json) select * from {call}"
    answer = await asyncio.to_thread(project.server.run, DATABASE, f"select {call};\n{explain}")
    plan = json.loads(answer[answer.index("[\n") :])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def test_deleting_a_job_deletes_its_parts(
    supabase_project: SupabaseProject, store: Store
) -> None:
    world = await new_world(store)
    job = await world.add_job()
    await store.save_session(job.id, "session", b"transcript")
    await asyncio.to_thread(
        supabase_project.server.run, DATABASE, f"delete from agent_jobs where id = '{job.id}'"
    )
    assert await store.load_session(job.id) is None
    assert await store.get_job(new_id()) is None
