"""Network faults: each change is made once, or its failure is reported in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from domain.errors import Conflict, DependencyUnavailable
from domain.job_details import JobFilter, PullRequestRecord
from domain.jobs import LIVE, JobStatus, Phase, Usage
from store import retrying
from store.protocol import Guard, JobChanges, Store
from store.supabase.connection import RetryLimits
from store.supabase.store import SupabaseStore
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import (
    START,
    World,
    a_client,
    a_host,
    a_line,
    a_repository,
    a_request,
    lines,
    new_id,
    new_world,
    work_of,
)
from tests.unit.store.supabase.fault_proxy import Fault, FaultProxy, Instead, fault_proxy
from tests.unit.store.supabase.project import SupabaseProject

FAULTS: dict[str, list[Fault | Instead]] = {
    **{fault.name.lower(): [fault] for fault in Fault},
    "unavailable": [Instead(503)],
    "bad_gateway_thrice": [Instead(502)] * 3,
    "lost_twice": [Fault.RESET_AFTER, Fault.CUT_ANSWER],
}

GRANT: JobChanges = {"status": JobStatus.RUNNING, "phase": Phase.PREPARING, "lease": 1}
NOT_GRANTED = Guard(LIVE, lease_below=1)


@dataclass
class Faulty:
    """A store behind the proxy, and a world with direct access to the same project."""

    store: Store
    proxy: FaultProxy
    world: World
    project: SupabaseProject


@asynccontextmanager
async def faulty_store(
    project: SupabaseProject, limits: RetryLimits | None
) -> AsyncIterator[Faulty]:
    await asyncio.to_thread(project.empty)
    direct = SupabaseStore(project.url, project.key)
    await direct.open()
    async with fault_proxy(project.url) as proxy:
        store = SupabaseStore(proxy.url, project.key, limits=limits)
        await store.open()
        proxy.forget()
        try:
            yield Faulty(store, proxy, await new_world(direct), project)
        finally:
            await store.close()
            await direct.close()


def limits(answer: float) -> RetryLimits:
    return RetryLimits(connect=5.0, answer=answer, total=20.0, first_pause=0.01)


@pytest.fixture
async def faulty(supabase_project: SupabaseProject) -> AsyncIterator[Faulty]:
    async with faulty_store(supabase_project, limits(answer=0.5)) as faulty:
        yield faulty


async def creates_a_client(faulty: Faulty) -> None:
    client = a_client("new")
    await faulty.store.create_client(client)
    details = await faulty.world.store.get_client(client.id)
    assert details is not None
    assert details.client == client


async def adds_a_repository(faulty: Faulty) -> None:
    repository = a_repository(faulty.world.client, repo_name="new")
    await faulty.store.add_repository(repository)
    assert await faulty.world.store.get_repository(repository.id) == repository


async def creates_a_job(faulty: Faulty) -> None:
    job = faulty.world.job()
    await faulty.store.create_job(job)
    assert await faulty.world.read(job) == job
    assert (await faulty.world.store.list_jobs(JobFilter(), 1, 0)).total == 1


async def grants_a_slot(faulty: Faulty) -> None:
    job = await faulty.world.add_job()
    assert await faulty.store.update_job(job.id, GRANT, NOT_GRANTED)
    assert (await faulty.world.read(job)).lease == 1


async def appends_lines(faulty: Faulty) -> None:
    job, batch = await faulty.world.add_job(lease=3), lines(50)
    await faulty.store.append_messages(job.id, batch, 3)
    found = await faulty.world.transcript(job)
    assert [(line.id, line.seq) for line in found] == [
        (line.id, seq) for seq, line in enumerate(batch, 1)
    ]


async def keeps_a_message(faulty: Faulty) -> None:
    job, message = await faulty.world.add_job(), a_line()
    await faulty.store.put_in_inbox(job.id, message)
    assert len(await faulty.project.tables.select("agent_job_inbox")) == 1
    assert await faulty.world.store.take_from_inbox(job.id, message.id)


async def takes_a_message(faulty: Faulty) -> None:
    job, message = await faulty.world.add_job(), a_line()
    await faulty.world.store.put_in_inbox(job.id, message)
    assert await faulty.store.take_from_inbox(job.id, message.id)
    assert [line.id for line in await faulty.world.transcript(job)] == [message.id]


async def adds_usage(faulty: Faulty) -> None:
    job = await faulty.world.add_job()
    await faulty.store.add_usage(job.id, new_id(), Usage(1, 0.5, 10), 2.0)
    found = await faulty.world.read(job)
    assert (found.usage, found.claude_seconds) == (Usage(1, 0.5, 10), 2.0)


async def saves_a_session(faulty: Faulty) -> None:
    job = await faulty.world.add_job()
    await faulty.store.save_session(job.id, "session", b"transcript")
    assert await faulty.world.store.load_session(job.id) == ("session", b"transcript")


async def records_a_pull_request(faulty: Faulty) -> None:
    repository = faulty.world.repository.id
    record = PullRequestRecord(
        new_id(), new_id(), repository, None, "feat/x", "https://x", 17, "T", "https://y"
    )
    await faulty.store.record_pull_request(record)
    for table, row_id in (
        ("code_branches", record.branch_id),
        ("code_pull_requests", record.pull_request_id),
    ):
        assert [row["id"] for row in await faulty.project.tables.select(table)] == [row_id]


async def reports_and_removes_a_host(faulty: Faulty) -> None:
    host = a_host()
    await faulty.store.report_host(host)
    assert await faulty.world.store.live_hosts(START) == [host]
    await faulty.store.remove_host(host.id, host.boot_id)
    assert await faulty.world.store.live_hosts(START) == []


async def keeps_work(faulty: Faulty) -> None:
    job = await faulty.world.add_job()
    work = work_of(job)
    await faulty.store.keep_work(work)
    assert await faulty.world.store.kept_work(job.id) == work


async def holds_a_credential(faulty: Faulty) -> None:
    await faulty.store.hold_credential("credential", START)
    assert await faulty.world.store.credential_held_until("credential") == START


async def claims_and_answers_a_key(faulty: Faulty) -> None:
    request = a_request()
    assert await faulty.store.claim_key(request) == request
    answered = await faulty.store.answer_key(request.scope, request.key, 201, "{}")
    assert answered == await faulty.world.store.claim_key(a_request())
    assert answered == replace(request, status=201, answer="{}")


async def answers_a_key(faulty: Faulty) -> None:
    request = a_request()
    await faulty.world.store.claim_key(request)
    answered = await faulty.store.answer_key(request.scope, request.key, 201, "{}")
    assert answered == replace(request, status=201, answer="{}")


async def shares_a_key(faulty: Faulty) -> None:
    request = await faulty.world.store.claim_key(a_request())
    name = request.scope, request.key, request.resource_id
    assert await faulty.store.share_key(*name)
    await faulty.world.store.release_key(*name)
    assert await faulty.world.store.claim_key(a_request()) == request


async def releases_a_key(faulty: Faulty) -> None:
    request = await faulty.world.store.claim_key(a_request())
    await faulty.store.release_key(request.scope, request.key, request.resource_id)
    again = a_request()
    assert await faulty.world.store.claim_key(again) == again


async def reads_what_is_there(faulty: Faulty) -> None:
    job, batch = await faulty.world.add_job(), lines(3)
    await faulty.world.store.append_messages(job.id, batch)
    found = await faulty.store.read_messages(job.id, 1, 10)
    assert [line.id for line in found] == [line.id for line in batch[1:]]
    assert await faulty.store.get_job(job.id) == await faulty.world.details(job)
    assert await faulty.store.queue(5) == await faulty.world.store.queue(5)


ACTIONS: list[Callable[[Faulty], Awaitable[None]]] = [
    creates_a_client,
    adds_a_repository,
    creates_a_job,
    grants_a_slot,
    appends_lines,
    keeps_a_message,
    takes_a_message,
    adds_usage,
    saves_a_session,
    records_a_pull_request,
    reports_and_removes_a_host,
    keeps_work,
    holds_a_credential,
    claims_and_answers_a_key,
    answers_a_key,
    shares_a_key,
    releases_a_key,
    reads_what_is_there,
]


# After a lost answer, the action may have been executed, so each action is tested. The retries
# after other faults are the same for all actions, so a guarded update and reads are enough.
CASES = [
    *((act, "lost_twice") for act in ACTIONS),
    *(
        (act, fault)
        for act in (grants_a_slot, reads_what_is_there)
        for fault in FAULTS
        if fault != "lost_twice"
    ),
]


@pytest.mark.parametrize(("act", "fault"), CASES, ids=lambda part: getattr(part, "__name__", part))
async def test_a_temporary_fault_is_retried_and_the_change_is_made_once(
    supabase_project: SupabaseProject,
    act: Callable[[Faulty], Awaitable[None]],
    fault: str,
) -> None:
    faults = FAULTS[fault]
    stalls = not {Fault.STALL_BEFORE, Fault.STALL_AFTER}.isdisjoint(faults)
    answer = 0.5 if stalls else 5.0
    async with faulty_store(supabase_project, limits(answer)) as faulty:
        faulty.proxy.faults.extend(faults)
        await act(faulty)
        assert not faulty.proxy.faults
        assert len(faulty.proxy.requests) > len(faults)


@pytest.mark.parametrize(
    "fault", [*Fault, Instead(500, '{"code":"57014"}'), Instead(503), Instead(429)], ids=str
)
async def test_a_permanent_fault_is_reported_within_the_limit(
    faulty: Faulty, fault: Fault | Instead
) -> None:
    faulty.proxy.always = fault
    begun = time.monotonic()
    with pytest.raises(DependencyUnavailable) as caught:
        await faulty.store.get_job(new_id())
    assert time.monotonic() - begun < 21
    assert caught.value.system == "store"
    assert len(faulty.proxy.requests) == 4
    faulty.proxy.always = None
    await faulty.store.ping()


async def test_a_store_without_retries_sends_a_request_once(faulty: Faulty) -> None:
    once = faulty.store.without_retries()
    faulty.proxy.faults.append(Instead(503))
    with pytest.raises(DependencyUnavailable):
        await once.ping()
    assert len(faulty.proxy.requests) == 1
    await once.ping()


async def test_the_retrying_store_sends_a_request_once_per_pause(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retrying, "PAUSE", timedelta(hours=1))
    faulty.proxy.always = Instead(503)
    waiting = asyncio.create_task(retrying.retrying_store(faulty.store).ping())
    await eventually(lambda: "ping waits for the store" in caplog.text)
    assert len(faulty.proxy.requests) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_lost_answer_after_ten_seconds_does_not_duplicate_lines(
    supabase_project: SupabaseProject,
) -> None:
    async with faulty_store(supabase_project, None) as faulty:
        faulty.proxy.faults.append(Fault.STALL_AFTER)
        begun = time.monotonic()
        await appends_lines(faulty)
        assert time.monotonic() - begun < 20


async def test_the_total_limit_ends_a_request_whose_tries_are_slow(
    supabase_project: SupabaseProject,
) -> None:
    hasty = RetryLimits(answer=1.5, total=2.0, first_pause=0.01)
    async with faulty_store(supabase_project, hasty) as faulty:
        faulty.proxy.always = Fault.STALL_BEFORE
        begun = time.monotonic()
        with pytest.raises(DependencyUnavailable):
            await faulty.store.ping()
        assert 1.9 < time.monotonic() - begun < 2 * 1.5 + 2
        assert len(faulty.proxy.requests) == 2


async def test_a_grant_with_a_lost_answer_is_not_claimed_after_a_later_grant(
    supabase_project: SupabaseProject,
) -> None:
    async with faulty_store(supabase_project, RetryLimits(first_pause=4.0)) as faulty:
        job = await faulty.world.add_job()
        faulty.proxy.faults.append(Fault.RESET_AFTER)
        granting = asyncio.create_task(faulty.store.update_job(job.id, GRANT, NOT_GRANTED))
        await asyncio.wait_for(faulty.proxy.answered.wait(), 5)
        taken_over: JobChanges = {"lease": 2}
        assert await faulty.world.store.update_job(job.id, taken_over, Guard(LIVE, lease_below=2))
        assert not await granting
        assert (await faulty.world.read(job)).lease == 2


async def test_a_refused_request_is_not_retried(faulty: Faulty) -> None:
    await faulty.world.add_job(branch_name="feat/x")
    with pytest.raises(Conflict):
        await faulty.store.create_job(faulty.world.job(branch_name="feat/x"))
    assert len(faulty.proxy.requests) == 2, "one to create, one to name the holder"


async def test_a_server_that_goes_down_is_reported_and_used_again_later(
    supabase_project: SupabaseProject,
) -> None:
    async with fault_proxy(supabase_project.url) as proxy:
        store = SupabaseStore(proxy.url, supabase_project.key, limits=limits(answer=5.0))
        await store.open()
        port = proxy.port
    try:
        with pytest.raises(DependencyUnavailable):
            await store.ping()
        async with fault_proxy(supabase_project.url, port):
            await store.ping()
    finally:
        await store.close()


async def test_a_store_that_cannot_open_can_be_opened_later(
    supabase_project: SupabaseProject,
) -> None:
    async with fault_proxy(supabase_project.url) as proxy:
        store = SupabaseStore(proxy.url, supabase_project.key, limits=limits(answer=5.0))
        proxy.always = Instead(503)
        with pytest.raises(DependencyUnavailable):
            await store.open()
        with pytest.raises(DependencyUnavailable, match="not open"):
            await store.ping()
        proxy.always = None
        await store.open()
        await store.ping()
        await store.close()
