"""Write speed of each store for messages, and its read times with many rows."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from domain.job_details import JobFilter
from domain.messages import MessageType, NewMessage
from domain.names.ids import new_id
from domain.timestamps import utc_now
from store.protocol import Store
from tests.unit.store.conftest import sqlite_backend, supabase_backend
from tests.unit.store.samples import World, new_world
from tests.unit.store.supabase.installation import NotInstalled, install
from tests.unit.store.supabase.project import DATABASE, running_project

BATCH = 100
BATCHES = 60
JOBS = 100_000
MESSAGES = 1_000_000
CALLS = 60

Fill = Callable[[World, int, int], Awaitable[None]]


def report() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        root = Path(name)
        asyncio.run(_sqlite(root))
        try:
            install()
        except NotInstalled as reason:
            print(f"Supabase was not measured: {reason}")
            return
        work = root / "supabase"
        work.mkdir()
        with running_project(work) as project:

            async def fill(world: World, jobs: int, messages: int) -> None:
                script = _statements(world, jobs, messages, "gen_random_uuid()", "now()", "::uuid")
                await asyncio.to_thread(project.server.run, DATABASE, script + "vacuum analyze;")

            async def measure() -> None:
                async with supabase_backend(project) as backend:
                    await _measure("Supabase", backend.store, fill, goal=5_000)

            asyncio.run(measure())


async def _sqlite(root: Path) -> None:
    async def fill(world: World, jobs: int, messages: int) -> None:
        identity = "lower(printf('%s-%s-4%s-8%s-%s', hex(randomblob(4)), hex(randomblob(2)),"
        identity += " substr(hex(randomblob(2)), 2), substr(hex(randomblob(2)), 2),"
        identity += " hex(randomblob(6))))"
        moment = "'2026-01-01T00:00:00.000000+00:00'"
        script = _statements(world, jobs, messages, identity, moment, "")
        path = root / "data" / "orchestrator.db"
        with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
            for count in (jobs, messages):
                series = "with recursive series(number) as (select 1 union all select number + 1 "
                series += f"from series where number < {count})"
                script = script.replace(f"generate_series(1, {count}) number", "series")
                table = "agent_jobs" if count == jobs else "agent_job_messages"
                script = script.replace(f"insert into {table}", f"{series} insert into {table}")
            await asyncio.to_thread(connection.executescript, script)

    async with sqlite_backend(root) as backend:
        await _measure("SQLite", backend.store, fill, goal=20_000)


def _statements(
    world: World, jobs: int, messages: int, identity: str, moment: str, cast: str
) -> str:
    job = new_id()
    client, repository = world.client.id, world.repository.id
    columns = "id, client_id, repository_id, prompt, branch_name, status, job_type, created_at"
    return f"""
      insert into agent_jobs ({columns}, updated_at, queued_at)
        select {identity}, '{client}'{cast}, '{repository}'{cast}, 'Add a page', 'b' || number,
          'completed', 'code', {moment}, {moment}, {moment}
        from generate_series(1, {jobs}) number;
      insert into agent_jobs ({columns}, updated_at, queued_at)
        values ('{job}', '{client}', '{repository}', 'p', 'b', 'completed', 'code', {moment},
          {moment}, {moment});
      insert into agent_job_messages (id, job_id, seq, type, content, created_at)
        select {identity}, '{job}'{cast}, number, 'stdout', 'a line of some length', {moment}
        from generate_series(1, {messages}) number;
    """


async def _measure(name: str, store: Store, fill: Fill, goal: int) -> None:
    world = await new_world(store)
    print(f"{name}: messages/s from one job     {await _rate(world, 1):8.0f}  (goal: {goal})")
    print(f"{name}: messages/s from 8 at once   {await _rate(world, 8):8.0f}")
    await fill(world, 100, 1)
    small = await _reads(store)
    await fill(world, JOBS, MESSAGES)
    large = await _reads(store)
    for read, before in small.items():
        print(
            f"{name}: {read:<12} p50 {before:6.2f} ms with 100 jobs, {large[read]:6.2f} ms with "
            f"{JOBS:,}: ratio {large[read] / before:4.2f}  (goal: 2 or less)"
        )


async def _rate(world: World, writers: int) -> float:
    jobs = [await world.add_job() for _ in range(writers)]
    began = time.perf_counter()
    await asyncio.gather(*(_write(world.store, job.id) for job in jobs))
    return writers * BATCH * BATCHES / (time.perf_counter() - began)


async def _write(store: Store, job_id: str) -> None:
    for _ in range(BATCHES):
        lines = [
            NewMessage(new_id(), MessageType.STDOUT, "x" * 450, utc_now()) for _ in range(BATCH)
        ]
        await store.append_messages(job_id, lines)


async def _reads(store: Store) -> dict[str, float]:
    return {
        "jobs?limit=50": await _p50(lambda: store.list_jobs(JobFilter(), 50, 0)),
        "queue": await _p50(lambda: store.queue(100)),
    }


async def _p50(read: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await read()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000
