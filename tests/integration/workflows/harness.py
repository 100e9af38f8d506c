"""Runs the real workflows with scripted hosts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker

from domain.jobs import FINAL, Job, JobStatus, JobType
from temporal.start_job import JobLimits, start_job
from tests.integration.workflows.scripted_hosts import Scripts, running_hosts
from tests.integration.workflows.scripts import Script
from tests.integration.workflows.server import eventually, reached
from workflows import policies
from workflows.code_job import CodeJobWorkflow
from workflows.policies import Policy
from workflows.steps import JOBS_TASK_QUEUE, JobResult, workflow_id
from workflows.sync_repositories import SyncRepositoriesWorkflow
from workflows.task_job import TaskJobWorkflow

_AS_THEY_ARE = {name: value for name, value in vars(policies).items() if not name.startswith("__")}

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DEAD_QUEUE_SECONDS = 3.0
"""Instead of 20 s: how long a task may wait in a queue that no worker polls."""
HEARTBEAT_TIMEOUT_SECONDS = 2.5
"""Instead of 10 s. Only activities that last send heartbeats here."""
RETURN_SECONDS = 1.0
"""Instead of 10 s: how long a job waits for the host of its earlier lease, here a or b."""
LIMITS = JobLimits(
    job_timeout=timedelta(minutes=1),
    task_idle_timeout=timedelta(minutes=1),
    turn_timeout=timedelta(minutes=1),
)


class StartedJob:
    """A job whose workflow was started."""

    def __init__(self, job: Job, script: Script, handle: WorkflowHandle[Any, JobResult]) -> None:
        self.id = job.id
        self.script = script
        self.handle = handle

    async def result(self) -> JobResult:
        try:
            return await asyncio.wait_for(self.handle.result(), 40)
        except TimeoutError:
            waits = (await self.handle.describe()).raw_description.pending_activities
            raise AssertionError(
                f"The workflow did not end: {self.script.calls}, {waits}"
            ) from None

    async def cancel(self) -> None:
        """Cancel as the API does: first the row, if it is not final, then the workflow."""
        if self.script.row not in FINAL:
            self.script.row = JobStatus.CANCELLED
        await self.handle.cancel()

    async def send(self, message_id: str | None = None, **options: Any) -> str:
        """Send a message as the API does, with its id as the id of the update."""
        message = message_id or str(uuid.uuid4())
        options.setdefault("id", message)
        await self.handle.execute_update(TaskJobWorkflow.send_message, message, **options)
        return message

    async def complete(self) -> None:
        await self.handle.execute_update(TaskJobWorkflow.complete)

    async def gave_up(self, activity: str) -> None:
        """Wait until the workflow has requested the cancellation of an activity."""
        state = PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
        for _ in range(500):
            description = (await self.handle.describe()).raw_description
            pending = {p.activity_type.name: p.state for p in description.pending_activities}
            if pending.get(activity) == state:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{activity} was not cancelled")

    async def reached(self, event: EventType.ValueType) -> None:
        await reached(self.handle, event)

    async def called(self, activity: str, times: int = 1) -> None:
        """Wait until an activity was called `times` times."""
        await eventually(
            lambda: self.script.count(activity) >= times, what=f"{activity}: {self.script.calls}"
        )


class Harness:
    """Starts workflows, each with its script."""

    def __init__(self, temporal: TemporalClient) -> None:
        self.temporal = temporal
        self.scripts: Scripts = {}

    async def code_job(self, script: Script | None = None) -> StartedJob:
        return await self.start(new_job(), script or Script())

    async def task_job(
        self, script: Script | None = None, idle: timedelta = timedelta(minutes=1)
    ) -> StartedJob:
        limits = replace(LIMITS, task_idle_timeout=idle)
        return await self.start(new_job(JobType.TASK), script or Script(), limits)

    async def start(self, job: Job, script: Script, limits: JobLimits = LIMITS) -> StartedJob:
        self.scripts[workflow_id(job.id)] = script
        await start_job(self.temporal, job, "acme/shop", limits)
        handle = self.temporal.get_workflow_handle(workflow_id(job.id), result_type=JobResult)
        return StartedJob(job, script, handle)

    async def end_all(self) -> None:
        """Terminate the workflows that a test has left running."""
        scripts, started = self.scripts.copy(), list(self.scripts)
        self.scripts.clear()
        for name in started:
            with contextlib.suppress(RPCError):
                await self.temporal.get_workflow_handle(name).terminate("the test is over")
        for script in scripts.values():
            script.end()


def new_job(job_type: JobType = JobType.CODE) -> Job:
    return Job(
        id=str(uuid.uuid4()),
        client_id=str(uuid.uuid4()),
        repository_id=str(uuid.uuid4()),
        prompt="Add a login page",
        branch_name="feature/login",
        created_at=NOW,
        queued_at=NOW,
        updated_at=NOW,
        job_type=job_type,
    )


@contextlib.asynccontextmanager
async def running_harness(
    temporal: TemporalClient, max_cached_workflows: int = 100, *, fast: bool = True
) -> AsyncIterator[Harness]:
    """Poll for workflows and activities. With `fast`, the policies wait less."""
    harness = Harness(temporal)
    deciding = Worker(
        temporal,
        task_queue=JOBS_TASK_QUEUE,
        workflows=[CodeJobWorkflow, TaskJobWorkflow, SyncRepositoriesWorkflow],
        max_cached_workflows=max_cached_workflows,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _AS_THEY_ARE.items():
            patch.setattr(policies, name, value)
        if fast:
            make_fast(patch)
        # The time-skipping server rejects the cancellation of an activity that has just ended.
        release_delay = 0.0 if fast else 0.2
        async with running_hosts(temporal, harness.scripts, release_delay), deciding:
            yield harness
            await harness.end_all()


def make_fast(patch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between attempts, and allow at most three attempts."""
    moment = timedelta(milliseconds=20)
    for name, policy in vars(policies).copy().items():
        if isinstance(policy, Policy):
            patch.setattr(policies, name, _faster(policy, moment))
    pickup = timedelta(seconds=RETURN_SECONDS)
    patch.setattr(
        policies, "RETURN_TO_SLOT", replace(policies.RETURN_TO_SLOT, schedule_to_start=pickup)
    )
    slow_turn = policies.run_claude
    patch.setattr(policies, "run_claude", lambda limit: _faster(slow_turn(limit), moment))
    patch.setattr(policies, "requeue_backoff", lambda: itertools.repeat(moment))
    for name in ("OVERLOAD_BACKOFF", "MIN_LIMIT_WAITS", "KILLED_BACKOFF"):
        patch.setattr(policies, name, (moment,) * len(getattr(policies, name)))
    patch.setattr(policies, "UNKNOWN_RESET", moment)


def _faster(policy: Policy, moment: timedelta) -> Policy:
    retry = replace(
        policy.retry,
        initial_interval=moment,
        maximum_interval=moment,
        maximum_attempts=min(policy.retry.maximum_attempts, 3),
    )
    pickup = policy.schedule_to_start and timedelta(seconds=DEAD_QUEUE_SECONDS)
    silence = policy.heartbeat and timedelta(seconds=HEARTBEAT_TIMEOUT_SECONDS)
    return replace(policy, retry=retry, schedule_to_start=pickup, heartbeat=silence)
