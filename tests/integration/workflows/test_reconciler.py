"""Rows and workflows that differ, with a real server and a real store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from typing_extensions import override

from domain.errors import DependencyUnavailable
from domain.failures import FailureCode
from domain.job_details import JobDetails
from domain.jobs import Job, JobStatus, JobType, Phase
from domain.timestamps import utc_now
from store.sqlite.store import SqliteStore
from temporal import reconciler as reconciler_module
from temporal.reconciler import Reconciler
from temporal.start_job import JobLimits, start_job
from tests.integration.workflows.server import reached
from tests.unit.store.samples import World, new_world
from workflows.steps import workflow_id

LIMITS = JobLimits(timedelta(minutes=1), timedelta(minutes=1), timedelta(minutes=1))
SLEEPING = "sleeping"
ENDED = {"status": JobStatus.COMPLETED, "phase": Phase.CLEANING_UP}
Handle = WorkflowHandle[Any, Any]


@workflow.defn
class Sleeps:
    """A workflow that runs until it is cancelled."""

    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(3600)


class DownFor(SqliteStore):
    """A store that fails for some jobs."""

    jobs: frozenset[str] = frozenset()

    @override
    async def get_job(self, job_id: str) -> JobDetails | None:
        if job_id in self.jobs:
            raise DependencyUnavailable("The store does not answer.", "store")
        return await super().get_job(job_id)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DownFor]:
    opened = DownFor(tmp_path / "orchestrator.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def world(store: DownFor) -> World:
    return await new_world(store)


@pytest.fixture
async def reconciler(temporal: TemporalClient, world: World) -> AsyncIterator[Reconciler]:
    yield Reconciler(world.store, temporal, LIMITS)
    page = await world.store.jobs_to_reconcile(utc_now() + timedelta(days=1), "", 1000)
    for job in page:
        with contextlib.suppress(RPCError):
            await temporal.get_workflow_handle(workflow_id(job.id)).terminate()


@pytest.fixture
def started(temporal: TemporalClient, world: World) -> Any:
    """Start the workflow of a job, as POST /jobs does."""

    async def start(job: Job) -> Handle:
        await start_job(temporal, job, world.repository.full_name, LIMITS)
        return temporal.get_workflow_handle(workflow_id(job.id))

    return start


async def status_of(temporal: TemporalClient, job: Job) -> WorkflowExecutionStatus | None:
    return (await temporal.get_workflow_handle(workflow_id(job.id)).describe()).status


async def workflows_of(temporal: TemporalClient, job: Job) -> int:
    """Return the number of runs of a job's workflow."""
    query = f"WorkflowId = '{workflow_id(job.id)}'"
    for _ in range(200):
        runs = [run async for run in temporal.list_workflows(query)]
        if runs:
            return len(runs)
        await asyncio.sleep(0.02)
    return 0


async def test_a_row_without_a_workflow_gets_one(
    temporal: TemporalClient, world: World, reconciler: Reconciler
) -> None:
    code = await world.add_job(title="Log in ü", priority=2)
    task = await world.add_job(job_type=JobType.TASK)
    others = [Reconciler(world.store, temporal, LIMITS) for _ in range(2)]
    await asyncio.gather(*(each.reconcile_page() for each in [reconciler, *others]))
    await reconciler.reconcile_page()

    assert await workflows_of(temporal, code) == 1
    described = await temporal.get_workflow_handle(workflow_id(code.id)).describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    assert described.workflow_type == "CodeJob"
    assert await described.static_summary() == "Log in ü"
    assert described.raw_info.priority.priority_key == 2
    shown = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert shown["ClientId"] == world.client.id
    assert shown["Repository"] == "acme/shop"
    described = await temporal.get_workflow_handle(workflow_id(task.id)).describe()
    assert described.workflow_type == "TaskJob"


async def test_an_ended_row_without_phase_is_not_changed(
    world: World, reconciler: Reconciler, started: Any
) -> None:
    job = await world.add_job(phase=None)
    await started(job)
    await reconciler.reconcile_page()
    assert await world.read(job) == job


async def test_a_young_row_is_left_to_its_request(
    temporal: TemporalClient, world: World, reconciler: Reconciler
) -> None:
    job = await world.add_job(updated_at=utc_now())
    await reconciler.reconcile_page()
    with pytest.raises(RPCError, match="not found"):
        await status_of(temporal, job)


async def test_a_running_job_is_not_changed(
    temporal: TemporalClient, world: World, reconciler: Reconciler, started: Any
) -> None:
    job = await world.add_job(status=JobStatus.RUNNING, phase=Phase.WORKING)
    await started(job)
    await reconciler.reconcile_page()
    assert await world.read(job) == job
    assert await status_of(temporal, job) is WorkflowExecutionStatus.RUNNING


async def test_a_terminated_workflow_fails_its_row(
    world: World, reconciler: Reconciler, started: Any
) -> None:
    job = await world.add_job(status=JobStatus.RUNNING, phase=Phase.WORKING, pid=7)
    await (await started(job)).terminate("by hand")
    await reconciler.reconcile_page()
    row = await world.read(job)
    assert (row.status, row.phase) == (JobStatus.FAILED, None)
    assert row.failure_code is FailureCode.WORKFLOW_ENDED
    assert row.error == FailureCode.WORKFLOW_ENDED.sentence
    assert row.completed_at is not None
    assert row.pid is None
    [message] = await world.store.read_messages(job.id, 0, 10)
    assert message.content == f"Job failed: {row.error}"


async def test_a_cancelled_workflow_cancels_its_row(
    temporal: TemporalClient, world: World, reconciler: Reconciler
) -> None:
    job = await world.add_job()
    async with Worker(
        temporal,
        task_queue=SLEEPING,
        workflows=[Sleeps],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await temporal.start_workflow(
            Sleeps.run, id=workflow_id(job.id), task_queue=SLEEPING
        )
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    await reconciler.reconcile_page()
    row = await world.read(job)
    assert (row.status, row.phase, row.failure_code) == (JobStatus.CANCELLED, None, None)


async def test_an_ended_row_cancels_a_workflow_that_still_runs(
    temporal: TemporalClient, world: World, reconciler: Reconciler, started: Any
) -> None:
    job = await world.add_job(status=JobStatus.CANCELLED, phase=Phase.CLEANING_UP)
    handle = await started(job)
    await reconciler.reconcile_page()
    await reached(handle, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED)
    assert (await world.read(job)).status is JobStatus.CANCELLED


@pytest.mark.parametrize("had_workflow", [True, False])
async def test_an_ended_row_without_a_running_workflow_loses_its_phase(
    world: World, reconciler: Reconciler, started: Any, had_workflow: bool
) -> None:
    job = await world.add_job(**ENDED)
    if had_workflow:
        await (await started(job)).terminate()
    await reconciler.reconcile_page()
    row = await world.read(job)
    assert (row.status, row.phase, row.failure_code) == (JobStatus.COMPLETED, None, None)


async def test_rows_are_checked_in_pages_and_then_from_the_start(
    world: World, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "PAGE_SIZE", 3)

    async def left() -> int:
        return sum([(await world.read(job)).phase is not None for job in jobs])

    jobs = [await world.add_job(**ENDED) for _ in range(7)]
    for expected in (4, 1, 0):
        await reconciler.reconcile_page()
        assert await left() == expected
    jobs.append(await world.add_job(**ENDED, id="00000000-0000-4000-8000-000000000000"))
    await reconciler.reconcile_page()
    assert await left() == 0


async def test_a_row_that_cannot_be_reconciled_does_not_block_others(
    store: DownFor, world: World, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "INTERVAL", timedelta(0))
    ids = [f"{number}0000000-0000-4000-8000-000000000000" for number in range(3)]
    for job_id in ids[:2]:
        await world.add_job(id=job_id)
    store.jobs = frozenset(ids[:2])
    other = await world.add_job(**ENDED, id=ids[2])
    running = asyncio.create_task(reconciler.run_forever())
    try:
        async with asyncio.timeout(10):
            while await _phase(store, other.id) is not None:
                assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.jobs = frozenset()


async def _phase(store: DownFor, job_id: str) -> Phase | None:
    details = await store.get_job(job_id)
    assert details is not None
    return details.job.phase
