"""Errors of Supabase are translated, without the values of rows."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from domain.errors import (
    Conflict,
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    OrchestratorError,
)
from domain.jobs import JobStatus, Phase
from store.protocol import Store
from store.supabase.connection import RetryLimits
from store.supabase.store import SupabaseStore
from tests.unit.store.samples import World, a_client, later, new_world
from tests.unit.store.supabase.data_api import PUBLISHABLE_KEY, SECRET_KEY, DataApi
from tests.unit.store.supabase.fault_proxy import Fault, FaultProxy, Instead, fault_proxy
from tests.unit.store.supabase.project import SupabaseProject

ROW = "the text of the prompt"

Opener = Callable[[str, str], Store]


def postgrest(status: int, code: str | None) -> Instead:
    body = {"code": code, "details": f"Failing row contains ({ROW})", "hint": ROW, "message": "no"}
    return Instead(status, json.dumps(body))


ANSWERS: dict[str, tuple[Instead, type[OrchestratorError], int]] = {
    "duplicate": (postgrest(409, "23505"), Conflict, 1),
    "reference": (postgrest(409, "23503"), InvalidRequest, 1),
    "null": (postgrest(400, "23502"), InvalidRequest, 1),
    "check": (postgrest(400, "23514"), InvalidRequest, 1),
    "no uuid": (postgrest(400, "22P02"), InvalidRequest, 1),
    "no right": (postgrest(403, "42501"), DependencyFailed, 1),
    "expired key": (postgrest(401, "PGRST301"), DependencyFailed, 1),
    "wrong key": (Instead(401, '{"message":"Invalid API key"}'), DependencyFailed, 1),
    "no table": (postgrest(404, "PGRST205"), DependencyFailed, 1),
    "no column": (postgrest(400, "42703"), DependencyFailed, 1),
    "no route": (Instead(404, '{"message":"no Route matched"}'), DependencyFailed, 1),
    "another service": (Instead(200, '{"welcome":1}'), DependencyFailed, 1),
    "redirect": (Instead(302), DependencyFailed, 1),
    "bug": (postgrest(500, "XX000"), DependencyFailed, 1),
    "read only": (postgrest(405, "25006"), DependencyUnavailable, 1),
    "slow statement": (postgrest(500, "57014"), DependencyUnavailable, 4),
    "deadlock": (postgrest(500, "40P01"), DependencyUnavailable, 4),
    "no connection": (postgrest(503, "PGRST001"), DependencyUnavailable, 4),
    "no free connection": (postgrest(504, "PGRST003"), DependencyUnavailable, 4),
    "gateway": (
        Instead(502, '{"message":"An invalid response was received"}'),
        DependencyUnavailable,
        4,
    ),
    "too many requests": (Instead(429), DependencyUnavailable, 4),
    "page of a gateway": (Instead(522), DependencyUnavailable, 4),
}


@pytest.fixture
def open_at() -> Opener:
    limits = RetryLimits(first_pause=0.01)
    return lambda url, key: SupabaseStore(url, key, limits=limits)


@pytest.fixture
async def proxy(supabase_project: SupabaseProject) -> AsyncIterator[FaultProxy]:
    await asyncio.to_thread(supabase_project.empty)
    async with fault_proxy(supabase_project.url) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: FaultProxy, open_at: Opener) -> AsyncIterator[Store]:
    store = open_at(proxy.url, SECRET_KEY)
    await store.open()
    proxy.forget()
    yield store
    await store.close()


@pytest.mark.parametrize(("answer", "error", "tries"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_error_is_translated(
    store: Store, proxy: FaultProxy, answer: Instead, error: type[OrchestratorError], tries: int
) -> None:
    proxy.always = answer
    with pytest.raises(error) as caught:
        await store.create_client(a_client())
    assert len(proxy.requests) == tries
    assert type(caught.value) is error
    assert caught.value.message.endswith(".")
    output = "".join(traceback.format_exception(caught.value))
    assert ROW not in output
    assert SECRET_KEY not in output


async def test_a_value_that_postgres_refuses_is_not_in_the_error(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    world = await new_world(store)
    job = world.job(branch_name=ROW, status="nonsense")
    with caplog.at_level(logging.DEBUG), pytest.raises(OrchestratorError) as caught:
        await store.create_job(job)
    assert ROW not in "".join(traceback.format_exception(caught.value))
    assert ROW not in caplog.text


@pytest.mark.parametrize(
    "key", [PUBLISHABLE_KEY, "wrong", "sb_secret_of_another_project", "schlüssel"]
)
async def test_a_key_that_is_not_the_secret_one_is_refused_at_once(
    supabase_project: SupabaseProject, open_at: Opener, key: str
) -> None:
    store = open_at(supabase_project.url, key)
    with pytest.raises(DependencyFailed, match="SUPABASE_SERVICE_ROLE_KEY") as caught:
        await store.open()
    assert key not in caught.value.message
    with pytest.raises(DependencyUnavailable):
        await store.list_clients()


async def test_a_project_without_the_migrations_is_refused(
    supabase_project: SupabaseProject, open_at: Opener, tmp_path: Path
) -> None:
    supabase_project.server.create_database("bare")
    api = DataApi(supabase_project.server.address("bare"), tmp_path / "api")
    try:
        with pytest.raises(DependencyFailed, match="supabase db push"):
            await open_at(api.url, SECRET_KEY).open()
    finally:
        api.stop()


async def test_a_project_with_a_low_row_limit_is_refused(
    supabase_project: SupabaseProject, open_at: Opener, tmp_path: Path
) -> None:
    address = supabase_project.server.address("postgres")
    api = DataApi(address, tmp_path / "api", max_rows=999)
    try:
        with pytest.raises(DependencyFailed, match="at most 999 rows"):
            await open_at(api.url, SECRET_KEY).open()
    finally:
        api.stop()


async def test_lists_of_jobs_to_reconcile_do_not_read_prompts(
    store: Store, proxy: FaultProxy
) -> None:
    world = await new_world(store)
    await world.add_job(prompt=ROW)
    await world.add_job(prompt=ROW, status=JobStatus.RUNNING, phase=Phase.WORKING)
    proxy.forget()
    queue = await store.queue(10)
    assert (len(queue.queued), len(queue.running)) == (1, 1)
    assert len(await store.jobs_to_reconcile(later(1), "", 10)) == 2
    assert ROW.encode() not in b"".join(proxy.answers)
    assert len(proxy.answers) == 2


async def test_requests_are_not_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await store.find_repository(ROW, ROW)
        await store.get_client(a_client().id)
    assert caplog.text == ""


async def test_the_key_is_not_in_any_address(store: Store, proxy: FaultProxy) -> None:
    await new_world(store)
    await store.list_clients()
    for request in proxy.requests:
        line, _, _ = request.partition(b"\r\n")
        assert SECRET_KEY.encode() not in line
        assert SECRET_KEY.encode() in request


async def test_a_refused_write_with_a_lost_answer_is_still_refused(
    store: Store, proxy: FaultProxy
) -> None:
    world: World = await new_world(store)
    await world.add_job(branch_name="feat/x")
    proxy.faults.append(Fault.RESET_AFTER)
    with pytest.raises(Conflict):
        await world.add_job(branch_name="feat/x")
