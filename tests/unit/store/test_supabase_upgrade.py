"""The migrations create a new project and upgrade a project of the earlier product."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.errors import Conflict
from domain.job_details import JobFilter, Queue
from domain.jobs import FINAL, LIVE, JobStatus, JobType, Usage
from store.protocol import Guard, Store
from store.supabase.store import SupabaseStore
from tests.unit.store.samples import World, a_client, a_line, a_repository, later, new_id
from tests.unit.store.supabase.data_api import SECRET_KEY, DataApi
from tests.unit.store.supabase.postgres_server import MIGRATIONS, PostgresServer
from tests.unit.store.supabase.project import DATABASE, SupabaseProject

OLD = Path(__file__).parent / "supabase" / "predecessor.sql"
UPGRADED = "upgraded"
Rows = dict[str, dict[str, dict[str, Any]]]


def an_id(kind: str, number: int) -> str:
    return f"00000000-0000-4000-8000-{kind:0>11}{number}"


CLIENT, OTHER_CLIENT, REPOSITORY = an_id("c00", 1), an_id("c00", 2), an_id("e00", 1)
DONE, WITHOUT_REPOSITORY, TASK, RUNNING, QUEUED, OTHER_TYPE = (
    an_id("", number) for number in range(1, 7)
)
LEFT_UNFINISHED = (RUNNING, QUEUED, OTHER_TYPE)
QUESTION = "00000000-0000-4000-9000-00000000ffff"


@dataclass
class Upgrade:
    """A database of the earlier product: the data API, and the rows before and after."""

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
    """Return all rows with an id, by table and id."""
    listing = """
      select table_name from information_schema.columns
      where table_schema = 'public' and column_name = 'id' order by 1
    """
    rows: Rows = {}
    for table in server.run(database, listing).split():
        script = f"select coalesce(jsonb_object_agg(id, to_jsonb(t)), '{{}}') from {table} t"
        rows[table] = json.loads(server.run(database, script))
    return rows


def changes_of(upgrade: Upgrade, table: str, row_id: str) -> dict[str, Any]:
    """Return the values that the upgrade changed."""
    before, after = upgrade.before[table][row_id], upgrade.after[table][row_id]
    return {name: after[name] for name in before if after[name] != before[name]}


def test_no_row_is_lost_and_no_value_changed(upgrade: Upgrade) -> None:
    assert sum(len(rows) for rows in upgrade.before.values()) > 2350
    changed: dict[str, dict[str, Any]] = {}
    for table, rows in upgrade.before.items():
        assert upgrade.after[table].keys() == rows.keys()
        for row_id, row in rows.items():
            if (table, row_id) in {("agent_jobs", job_id) for job_id in LEFT_UNFINISHED}:
                continue
            for name, value in changes_of(upgrade, table, row_id).items():
                assert row[name] is None, (table, row_id, name)
                changed.setdefault(f"{table}.{name}", {})[row_id] = value
    now_known = changed["code_repositories.created_at"].pop(an_id("e00", 3))
    assert changed.pop("code_repositories.created_at") == {}
    assert changed == {
        "clients.created_at": {OTHER_CLIENT: "2025-01-03T10:00:00+00:00"},
        "code_repositories.default_branch": {an_id("e00", 2): "main", an_id("e00", 3): "main"},
        "code_repositories.updated_at": {
            an_id("e00", 2): "2025-01-02T10:00:00+00:00",
            an_id("e00", 3): now_known,
        },
        "agent_jobs.created_at": {TASK: "2025-02-03T11:00:00+00:00"},
        "agent_jobs.updated_at": {WITHOUT_REPOSITORY: "2025-02-02T11:00:00+00:00"},
        "agent_jobs.job_type": {WITHOUT_REPOSITORY: "code"},
        "agent_job_messages.created_at": {QUESTION: "2025-02-03T11:00:00+00:00"},
    }


@pytest.mark.parametrize("job_id", LEFT_UNFINISHED)
def test_an_unfinished_job_is_failed(upgrade: Upgrade, job_id: str) -> None:
    row = upgrade.after["agent_jobs"][job_id]
    changes = changes_of(upgrade, "agent_jobs", job_id)
    pid = {"pid"} if job_id == RUNNING else set()
    assert changes.keys() == {"status", "completed_at", "updated_at", "error"} | pid
    assert (row["status"], row["pid"]) == ("failed", None)
    assert "Retry the job" in row["error"]
    assert row["completed_at"] == row["updated_at"] > row["created_at"]
    assert (row["failure_code"], row["phase"]) == ("workflow_ended", None)


def test_new_columns_have_their_values(upgrade: Upgrade) -> None:
    for row in upgrade.after["agent_jobs"].values():
        assert row["queued_at"] == row["created_at"]
        assert (row["priority"], row["lease"], row["attempt"]) == (3, 0, 0)
        assert (row["num_turns"], row["claude_seconds"], row["cost_is_estimate"]) == (0, 0, False)
    lines: dict[str, list[tuple[str, str, int]]] = {}
    for line in upgrade.after["agent_job_messages"].values():
        lines.setdefault(line["job_id"], []).append((line["created_at"], line["id"], line["seq"]))
    assert sorted(map(len, lines.values())) == [1, 2345]
    for found in lines.values():
        assert [seq for _, _, seq in sorted(found)] == list(range(1, len(found) + 1))


def test_a_second_push_has_nothing_to_do(upgrade: Upgrade) -> None:
    assert "up to date" in upgrade.second_push
    assert "Applying" not in upgrade.second_push


async def test_existing_rows_can_be_read(upgraded: Store) -> None:
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
    assert lost.job.updated_at == lost.job.completed_at


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
    assert (await upgraded.list_jobs(JobFilter(FINAL), 50, 0)).total == 6
    assert await upgraded.queue(10) == Queue([], [], [], 0, 0, 0)


async def test_an_existing_message_log_is_read_completely(upgraded: Store) -> None:
    found = await upgraded.read_messages(DONE, 0, 3000)
    assert [(line.content, line.seq) for line in found] == [
        (f"line {number}", number) for number in range(1, 2346)
    ]


async def test_new_messages_follow_the_existing_messages(upgraded: Store) -> None:
    new = a_line("new")
    await upgraded.append_messages(TASK, [new])
    found = await upgraded.read_messages(TASK, 0, 10)
    assert [(line.content, line.seq) for line in found] == [("a question", 1), ("new", 2)]


async def test_an_existing_repository_is_not_added_again(upgraded: Store) -> None:
    details = await upgraded.get_client(CLIENT)
    assert details is not None
    with pytest.raises(Conflict):
        await upgraded.add_repository(a_repository(details.client, owner_name="ACME"))
    found = await upgraded.find_repository("ACME", "SHOP")
    assert found is not None
    assert found.id == REPOSITORY


async def test_jobs_of_the_earlier_product_are_not_reconciled(upgraded: Store) -> None:
    assert await upgraded.jobs_to_reconcile(later(1e9), "", 10) == []
    assert (await upgraded.list_jobs(JobFilter(LIVE), 50, 0)).total == 0


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
def test_an_upgraded_project_has_the_schema_of_a_new_project(upgrade: Upgrade, query: str) -> None:
    script = f"select coalesce(jsonb_agg(o), '[]') from ({query}) found (o)"
    new, old = (
        set(json.loads(upgrade.server.run(database, script))) for database in (DATABASE, UPGRADED)
    )
    assert new
    assert new - old == set()


def test_migrations_can_run_twice(supabase_project: SupabaseProject) -> None:
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
