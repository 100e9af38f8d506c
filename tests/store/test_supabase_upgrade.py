"""The migrations build an empty project, and upgrade the predecessor's without losing a row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.errors import Conflict
from domain.jobs import FINAL, LIVE, JobStatus, JobType, Usage
from store.protocol import Guard, JobFilter, Queue, Store
from store.supabase_store import SupabaseStore
from tests.store.samples import START, World, a_client, a_line, a_repository, later, new_id
from tests.store.supabase.data_api import SECRET_KEY, DataApi
from tests.store.supabase.postgres_server import MIGRATIONS, PostgresServer
from tests.store.supabase.project import DATABASE, SupabaseProject

OLD = Path(__file__).parent / "supabase" / "predecessor.sql"
UPGRADED = "upgraded"
Rows = dict[str, dict[str, dict[str, Any]]]


def an_id(kind: str, number: int) -> str:
    return f"00000000-0000-4000-8000-{kind:0>11}{number}"


CLIENT, OTHER_CLIENT, REPOSITORY = an_id("c00", 1), an_id("c00", 2), an_id("e00", 1)
DONE, WITHOUT_REPOSITORY, TASK, RUNNING, QUEUED, OTHER_TYPE = (
    an_id("", number) for number in range(1, 7)
)


@dataclass
class Upgrade:
    """A database that was the predecessor's, what it held before and after, and its data API."""

    server: PostgresServer
    before: Rows
    after: Rows
    second_push: str
    url: str


@pytest.fixture(scope="session")
def upgrade(
    supabase_project: SupabaseProject, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Upgrade]:
    server = supabase_project.server
    server.create_database(UPGRADED)
    server.run(UPGRADED, OLD.read_text())
    before = all_rows(server, UPGRADED)
    server.push(UPGRADED)
    after = all_rows(server, UPGRADED)
    second_push = server.push(UPGRADED)
    api = DataApi(server.address(UPGRADED), tmp_path_factory.mktemp("upgraded") / "api")
    yield Upgrade(server, before, after, second_push, api.url)
    api.stop()


@pytest.fixture
async def upgraded(upgrade: Upgrade) -> AsyncIterator[Store]:
    store = SupabaseStore(upgrade.url, SECRET_KEY)
    await store.open()
    yield store
    await store.close()


def all_rows(server: PostgresServer, database: str) -> Rows:
    """Every row of every table that has an id, by table and id."""
    listing = """
      select table_name from information_schema.columns
      where table_schema = 'public' and column_name = 'id' order by 1
    """
    rows: Rows = {}
    for table in server.run(database, listing).split():
        script = f"select coalesce(jsonb_object_agg(id, to_jsonb(t)), '{{}}') from {table} t"
        rows[table] = json.loads(server.run(database, script))
    return rows


def test_no_row_is_lost_and_no_value_changed(upgrade: Upgrade) -> None:
    assert sum(len(rows) for rows in upgrade.before.values()) > 2350
    for table, rows in upgrade.before.items():
        assert upgrade.after[table].keys() == rows.keys()
        for row_id, row in rows.items():
            kept = {name: upgrade.after[table][row_id][name] for name in row}
            if row.get("created_at", "") is None:
                assert kept.pop("created_at")
                del row["created_at"]
            assert kept == row


def test_a_second_push_has_nothing_to_do(upgrade: Upgrade) -> None:
    assert "up to date" in upgrade.second_push
    assert "Applying" not in upgrade.second_push


async def test_what_was_there_reads_well(upgraded: Store) -> None:
    acme, zeta = await upgraded.list_clients()
    assert (acme.client.name, zeta.client.name) == ("Acme", "Zeta & Söhne")
    assert [found.repo_name for found in zeta.repositories] == ["shop", "Shop"]
    done = await upgraded.get_job(DONE)
    assert done is not None
    assert (done.client_name, done.feature_title) == ("Zeta & Söhne", "Login")
    assert done.repository == zeta.repositories[0]
    assert (done.job.status, done.job.phase, done.job.usage) == (JobStatus.COMPLETED, None, Usage())
    assert (done.job.lease, done.job.priority, done.job.queued_at) == (0, 3, done.job.created_at)
    lost = await upgraded.get_job(WITHOUT_REPOSITORY)
    assert lost is not None
    assert (lost.repository, lost.job.repository_id, lost.job.error) == (
        None,
        "",
        "No repository found",
    )
    assert lost.job.updated_at == lost.job.created_at


async def test_jobs_are_listed_and_counted(upgraded: Store) -> None:
    page = await upgraded.list_jobs(JobFilter(client_id=CLIENT), 50, 0)
    assert [details.job.id for details in page.jobs] == [
        OTHER_TYPE,
        QUEUED,
        RUNNING,
        WITHOUT_REPOSITORY,
        DONE,
    ]
    assert page.total == 5
    (task,) = (await upgraded.list_jobs(JobFilter(client_id=OTHER_CLIENT), 50, 0)).jobs
    assert task.job.job_type is JobType.TASK
    assert (await upgraded.list_jobs(JobFilter(FINAL), 50, 0)).total == 3
    assert await upgraded.queue(10) == Queue([], [], [], 0, 0, 0)


async def test_a_transcript_without_numbers_is_read_completely(upgraded: Store) -> None:
    found = await upgraded.read_messages(DONE, 0, 10)
    assert [line.content for line in found] == [f"line {number}" for number in range(1, 2346)]
    assert {line.seq for line in found} == {None}


async def test_new_lines_follow_the_old_ones(upgraded: Store) -> None:
    new = a_line("new")
    await upgraded.append_messages(TASK, [new])
    found = await upgraded.read_messages(TASK, 0, 10)
    assert [(line.content, line.seq) for line in found] == [("a question", None), ("new", 1)]


async def test_a_repository_that_was_there_is_not_added_again(upgraded: Store) -> None:
    details = await upgraded.get_client(CLIENT)
    assert details is not None
    with pytest.raises(Conflict):
        await upgraded.add_repository(a_repository(details.client, owner_name="ACME"))
    found = await upgraded.find_repository("ACME", "SHOP")
    assert found is not None
    assert found.id == REPOSITORY


async def test_live_jobs_of_the_predecessor_can_be_ended(upgraded: Store) -> None:
    stuck = {job.id for job in await upgraded.jobs_to_reconcile(later(1e9), "", 10)}
    assert stuck == {RUNNING, QUEUED, OTHER_TYPE}
    for job_id in stuck:
        failed = {"status": JobStatus.FAILED, "completed_at": START}
        assert await upgraded.update_job(job_id, failed, Guard(LIVE))  # type: ignore[arg-type]
    assert await upgraded.jobs_to_reconcile(later(1e9), "", 10) == []
    assert (await upgraded.list_jobs(JobFilter(LIVE), 50, 0)).total == 0
    assert (await upgraded.list_jobs(JobFilter(FINAL), 50, 0)).total == 6


async def test_new_jobs_hold_their_branch(upgraded: Store) -> None:
    client = a_client()
    await upgraded.create_client(client)
    repository = await upgraded.get_repository(REPOSITORY)
    assert repository is not None
    world = World(upgraded, client, repository)
    holder = await world.add_job(branch_name="feat/same")
    with pytest.raises(Conflict, match=holder.id):
        await world.add_job(branch_name="feat/same")
    ended = {"status": JobStatus.CANCELLED, "phase": None}
    assert await upgraded.update_job(holder.id, ended, Guard(LIVE))  # type: ignore[arg-type]


OBJECTS = {
    "indexes": "select indexname || ' ' || indexdef from pg_indexes where schemaname = 'public'",
    "functions": """
        select p.oid::regprocedure || ' ' || p.prosrc from pg_proc p
        where p.pronamespace = 'public'::regnamespace
    """,
    "triggers": "select tgrelid::regclass || ' ' || tgname from pg_trigger where not tgisinternal",
    "secured tables": "select relname from pg_class where relrowsecurity",
    "columns": """
        select table_name || '.' || column_name || ' ' || data_type
        from information_schema.columns where table_schema = 'public'
    """,
    "columns never null": """
        select table_name || '.' || column_name from information_schema.columns
        where table_schema = 'public' and is_nullable = 'NO'
    """,
    "rights of the service role": """
        select table_name || ' ' || privilege_type from information_schema.role_table_grants
        where grantee = 'service_role'
    """,
}


@pytest.mark.parametrize("query", OBJECTS.values(), ids=OBJECTS.keys())
def test_an_upgraded_project_has_all_that_a_new_one_has(upgrade: Upgrade, query: str) -> None:
    script = f"select coalesce(jsonb_agg(o), '[]') from ({query}) found (o)"
    new, old = (
        set(json.loads(upgrade.server.run(database, script))) for database in (DATABASE, UPGRADED)
    )
    assert new
    assert new - old == set()


def test_migrations_may_be_run_again(supabase_project: SupabaseProject) -> None:
    server = supabase_project.server
    supabase_project.empty()
    client, database = new_id(), DATABASE
    server.run(database, f"insert into clients (id, name) values ('{client}', 'Acme')")
    server.run(
        database,
        "insert into agent_jobs (client_id, prompt, branch_name) "
        f"select '{client}', 'p', 'b' from generate_series(1, 3)",
    )
    for script in sorted(MIGRATIONS.glob("*.sql")):
        server.run(database, script.read_text())
    assert server.run(database, "select client_id, status, jobs from agent_job_counts").split() == [
        f"{client}|queued|3"
    ]
