from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from domain.errors import Conflict, InvalidRequest
from domain.failures import FailureCode, TimeLimit
from domain.job_details import JobDetails, JobFilter, JobStateDetails, PullRequestRecord
from domain.jobs import (
    FINAL,
    LIVE,
    Job,
    JobOptions,
    JobStatus,
    JobType,
    Outcome,
    Phase,
    RetryFrom,
    Usage,
)
from store.protocol import Guard, Store
from tests.unit.store.samples import START, UNKNOWN_ID, RawTables, World, later, new_id, state_of


async def test_a_new_job_is_read_as_it_was_written(world: World) -> None:
    job = await world.add_job()
    assert await world.details(job) == JobDetails(
        job=job, client_name="Acme", repository=world.repository, feature_title=None
    )
    assert await world.store.get_job(job.id.upper()) == await world.store.get_job(job.id)


async def test_a_job_with_every_field_set_is_read_as_it_was_written(
    world: World, tables: RawTables
) -> None:
    feature, member = new_id(), new_id()
    await tables.insert(
        "features", [{"id": feature, "client_id": world.client.id, "title": "Login"}]
    )
    await tables.insert("team_members", [{"id": member, "full_name": "Ada"}])
    original = await world.add_job()
    record = a_record(world)
    await world.store.record_pull_request(record)
    job = await world.add_job(
        feature_id=feature,
        created_by_team_member_id=member,
        retry_of=original.id,
        retry_from=RetryFrom.PUBLISH,
        options=EVERY_OPTION,
        job_type=JobType.TASK,
        status=JobStatus.COMPLETED,
        phase=Phase.CLEANING_UP,
        title="Title",
        priority=5,
        lease=3,
        attempt=2,
        host="mill-1",
        worktree_path="/data/worktrees/1",
        pid=4711,
        session_id="session-1",
        model="opus",
        base_sha="a" * 40,
        head_sha="b" * 40,
        queued_at=later(1),
        updated_at=later(2),
        started_at=later(3.000001),
        completed_at=later(4),
        exit_code=-9,
        outcome=Outcome.PULL_REQUEST,
        failure_code=FailureCode.PUSH_REJECTED,
        clock=TimeLimit.SILENCE,
        resumes_at=later(5.000001),
        error="an error",
        result="a result",
        usage=Usage(7, 0.123456789, 2**40, 2, 3, 4),
        cost_is_estimate=True,
        claude_seconds=12.75,
        pr_url=record.url,
        pr_number=17,
        files_changed=0,
        code_branch_id=record.branch_id,
        code_pull_request_id=record.pull_request_id,
    )
    assert [field.name for field in fields(Job) if getattr(job, field.name) == field.default] == []
    state = JobStateDetails(job=state_of(job), repository=world.repository)
    assert await world.store.get_job_state(job.id) == state
    assert await world.details(job) == JobDetails(
        job=job, client_name="Acme", repository=world.repository, feature_title="Login"
    )


EVERY_OPTION = JobOptions(
    model="opus",
    max_turns=30,
    max_budget_usd=2.5,
    timeout_minutes=90,
    base_branch="release/1.x",
    draft=True,
    labels=("bug", "needs review"),
    reviewers=("octocat", "acme/team"),
)
ONE_OPTION = [
    JobOptions(**{field.name: getattr(EVERY_OPTION, field.name)}) for field in fields(JobOptions)
]


@pytest.mark.parametrize("options", ONE_OPTION)
async def test_only_options_that_differ_from_the_default_are_written(
    world: World, tables: RawTables, options: JobOptions
) -> None:
    chosen, plain = await world.add_job(options=options), await world.add_job()
    assert (await world.read(chosen)).options == options
    assert (await world.read(plain)).options == JobOptions()
    rows = {row["id"]: row["options"] for row in await tables.select("agent_jobs")}
    assert rows[plain.id] is None
    stored = rows[chosen.id]
    written = json.loads(stored) if isinstance(stored, str) else stored
    assert written == {
        field.name: json.loads(json.dumps(getattr(options, field.name)))
        for field in fields(JobOptions)
        if getattr(options, field.name) != field.default
    }
    assert len(written) == 1


async def test_options_are_read_in_lists(world: World) -> None:
    job = await world.add_job(options=EVERY_OPTION)
    (listed,) = (await world.store.list_jobs(JobFilter(), 10, 0)).jobs
    (stale,) = await world.store.jobs_to_reconcile(later(1), "", 10)
    assert (listed.job, stale) == (job, state_of(job))


def a_record(world: World) -> PullRequestRecord:
    return PullRequestRecord(
        branch_id=new_id(),
        pull_request_id=new_id(),
        repository_id=world.repository.id,
        feature_id=None,
        branch_name="feat/x",
        branch_url="https://github.com/acme/shop/tree/feat/x",
        number=17,
        title="Title",
        url="https://github.com/acme/shop/pull/17",
    )


async def test_another_connection_sees_a_job_at_once(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    elsewhere = await connect()
    job = await world.add_job()
    assert await elsewhere.get_job(job.id) == await world.details(job)


async def test_creating_a_job_twice_changes_nothing(world: World) -> None:
    job = await world.add_job()
    started = {"status": JobStatus.RUNNING, "phase": Phase.WORKING, "lease": 1}
    assert await world.store.update_job(job.id, started, Guard(frozenset(JobStatus)))  # type: ignore[arg-type]
    before = await world.read(job)
    await world.store.create_job(replace(job, prompt="other", branch_name="other"))
    assert await world.read(job) == before


@pytest.mark.parametrize(
    "reference",
    ["client_id", "repository_id", "feature_id", "created_by_team_member_id", "retry_of"],
)
@pytest.mark.parametrize("no_id", [UNKNOWN_ID, "", "no-such-id", "\x00", "\ud800"])
async def test_a_reference_to_a_missing_row_is_refused(
    world: World, reference: str, no_id: str
) -> None:
    job = world.job(**{reference: no_id})
    with pytest.raises(InvalidRequest, match=reference):
        await world.store.create_job(job)
    assert await world.store.get_job(job.id) is None


async def test_a_malformed_job_id_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest, match="id 'job-1'"):
        await world.add_job(id="job-1")


@pytest.mark.parametrize("status", sorted(LIVE))
@pytest.mark.parametrize("phase", [None, *Phase])
async def test_a_live_code_job_holds_its_branch(
    world: World, status: JobStatus, phase: Phase | None
) -> None:
    holder = await world.add_job(branch_name="feat/x", status=status, phase=phase)
    with pytest.raises(Conflict, match=holder.id):
        await world.add_job(branch_name="feat/x")


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_ended_job_does_not_hold_its_branch(world: World, status: JobStatus) -> None:
    await world.add_job(branch_name="feat/x", status=status)
    await world.add_job(branch_name="feat/x")


async def test_tasks_share_a_branch_name(world: World) -> None:
    for job_type in (JobType.TASK, JobType.CODE, JobType.TASK):
        await world.add_job(branch_name="feat/x", job_type=job_type)


async def test_another_repository_has_its_own_branches(world: World) -> None:
    other = await world.other()
    await world.add_job(branch_name="feat/x")
    await other.add_job(branch_name="feat/x")
    await world.add_job(branch_name="feat/X")


async def test_one_of_concurrent_jobs_gets_a_branch(
    world: World, connect: Callable[[], Awaitable[Store]]
) -> None:
    stores = [world.store, await connect()]
    jobs = [world.job(branch_name="feat/x") for _ in range(8)]
    results = await asyncio.gather(
        *(stores[number % 2].create_job(job) for number, job in enumerate(jobs)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert results.count(None) == 1


async def test_a_job_of_another_type_without_a_repository_is_read(
    world: World, tables: RawTables
) -> None:
    """The earlier product has stored such jobs."""
    job_id, moment = new_id(), START.isoformat()
    row: dict[str, Any] = {
        "id": job_id,
        "client_id": world.client.id,
        "prompt": "old",
        "branch_name": "feat/old",
        "status": "failed",
        "job_type": "something",
        "repository_id": None,
        "created_at": moment,
        "queued_at": moment,
        "updated_at": moment,
    }
    await tables.insert("agent_jobs", [row])
    found = await world.store.get_job(job_id)
    assert found is not None
    assert (found.client_name, found.repository, found.feature_title) == ("Acme", None, None)
    job = found.job
    state = await world.store.get_job_state(job_id)
    assert state == JobStateDetails(job=state_of(job), repository=None)
    assert job.repository_id == ""
    assert (job.job_type, job.status, job.phase) == (JobType.CODE, JobStatus.FAILED, None)
    assert (job.priority, job.lease, job.attempt, job.usage) == (3, 0, 0, Usage())
    assert (job.options, job.retry_from, job.cost_is_estimate) == (JobOptions(), None, False)
    assert (job.clock, job.resumes_at) == (None, None)


async def test_values_of_a_newer_version_are_read(world: World, tables: RawTables) -> None:
    job_id = new_id()
    row = {
        "id": job_id,
        "client_id": world.client.id,
        "prompt": "new",
        "branch_name": "feat/new",
        "status": "failed",
        "phase": "dreaming",
        "outcome": "poem",
        "failure_code": "lost_interest",
        "clock": "tea_time",
        "retry_from": "yesterday",
        "options": {
            "model": {"name": "opus"},
            "max_turns": "many",
            "max_budget_usd": 3,
            "draft": None,
            "labels": ["bug", {"name": "red"}, 7],
            "reviewers": {"all": True},
            "mood": "calm",
        },
        "created_at": START.isoformat(),
        "queued_at": START.isoformat(),
        "updated_at": START.isoformat(),
    }
    await tables.insert("agent_jobs", [row])
    found = await world.store.get_job(job_id)
    assert found is not None
    assert (found.job.phase, found.job.outcome) == (None, None)
    assert found.job.failure_code is FailureCode.INTERNAL
    assert (found.job.clock, found.job.retry_from) == (None, None)
    assert found.job.options == JobOptions(max_budget_usd=3, labels=("bug",))
