"""Long waits at their real length, on Temporal's time-skipping server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.testing import WorkflowEnvironment

from domain.errors import JobFailure
from domain.failures import FailureCode, TimeLimit
from domain.jobs import JobStatus, JobType, Outcome
from temporal.client import register_search_attributes
from temporal.start_job import JobLimits
from tests.integration.workflows.harness import (
    LIMITS,
    Harness,
    StartedJob,
    new_job,
    running_harness,
)
from tests.integration.workflows.scripts import Script, raises
from workflows import policies
from workflows.steps import JobResult

MOMENT = timedelta(milliseconds=100)
TIMER_STARTED = EventType.EVENT_TYPE_TIMER_STARTED
DECIDING = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
}
DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(Path(sys.executable).with_name("temporal-test-server"))
    ) as server:
        await register_search_attributes(server.client)
        yield server


@pytest.fixture
async def real_time_harness(environment: WorkflowEnvironment) -> AsyncIterator[Harness]:
    """A harness with the policies of production."""
    # Time is skipped by hand while no activity runs, because activities cannot send heartbeats in
    # skipped time.
    with environment.auto_time_skipping_disabled():
        async with running_harness(environment.client, fast=False) as harness:
            yield harness


@dataclass
class Life:
    """A job on a server whose time can be skipped."""

    job: StartedJob
    environment: WorkflowEnvironment
    began: datetime

    async def run_to_completion(self) -> JobResult:
        """Skip the time whenever the job only waits."""
        while (description := await self.job.handle.describe()).close_time is None:
            rings_at = None
            if not description.raw_description.pending_activities:
                rings_at = await self._timer()
            if rings_at is None:
                await asyncio.sleep(0.02)
            else:
                now = await self.environment.get_current_time()
                await self.environment.sleep(max(rings_at - now, timedelta()) + MOMENT)
        return await self.job.result()

    async def _timer(self) -> datetime | None:
        """Return when the only timer fires, or None if the job does not wait for a timer."""
        events = (await self.job.handle.fetch_history()).events
        timers = {event.event_id: event for event in events if event.event_type == TIMER_STARTED}
        for event in events:
            timers.pop(event.timer_fired_event_attributes.started_event_id, None)
            timers.pop(event.timer_canceled_event_attributes.started_event_id, None)
        if not timers or events[-1].event_type in DECIDING:
            return None
        [timer] = timers.values()
        waits = timer.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        return timer.event_time.ToDatetime(UTC) + waits

    async def took(self) -> timedelta:
        return await self.environment.get_current_time() - self.began

    @property
    def waited_until(self) -> list[datetime]:
        return [wait.resumes_at for wait in self.job.script.requests["wait_for_limit"]]


class Start(Protocol):
    async def __call__(
        self, script: Script, limits: JobLimits = LIMITS, job_type: JobType = JobType.CODE
    ) -> Life: ...


@pytest.fixture
def start(environment: WorkflowEnvironment, real_time_harness: Harness) -> Start:
    async def start_job(
        script: Script, limits: JobLimits = LIMITS, job_type: JobType = JobType.CODE
    ) -> Life:
        began = await environment.get_current_time()
        job = await real_time_harness.start(new_job(job_type), script, limits)
        return Life(job, environment, began)

    return start_job


async def test_a_conversation_waits_a_week_for_its_user(start: Start) -> None:
    week = timedelta(days=7)
    life = await start(Script(), replace(LIMITS, task_idle_timeout=week), JobType.TASK)
    result = await life.run_to_completion()
    assert (result.status, result.error) == (JobStatus.FAILED, TimeLimit.IDLE.sentence)
    assert week <= await life.took() < week + timedelta(minutes=1)


async def test_a_job_waits_five_hours_for_a_usage_limit(
    start: Start, environment: WorkflowEnvironment
) -> None:
    resets_at = await environment.get_current_time() + timedelta(hours=5)
    script = Script()
    script.plan("run_claude", raises(JobFailure(FailureCode.USAGE_LIMIT, resets_at=resets_at)))
    limits = replace(LIMITS, job_timeout=timedelta(hours=1), turn_timeout=timedelta(hours=1))
    life = await start(script, limits)
    assert await life.run_to_completion() == DONE
    [until] = life.waited_until
    assert resets_at <= until <= resets_at + policies.MAX_JITTER
    assert await environment.get_current_time() >= until
    # The wait does not count for the job's time limit.
    given = [request.limit_seconds for request in script.requests["run_claude"]]
    assert all(3500 < seconds <= 3600 for seconds in given)


async def test_waits_grow_if_the_limit_is_met_again(start: Start) -> None:
    script = Script()
    past = datetime(2026, 1, 1, tzinfo=UTC)
    limited = raises(JobFailure(FailureCode.USAGE_LIMIT, resets_at=past))
    script.plan("run_claude", *[limited] * 6)
    life = await start(script)
    assert await life.run_to_completion() == DONE
    gaps = [later - earlier for earlier, later in pairwise([life.began, *life.waited_until])]
    most = timedelta(minutes=1)
    for gap, least in zip(gaps, [1, 60, 300, 900, 900, 900], strict=True):
        assert timedelta(seconds=least) <= gap < timedelta(seconds=least * 1.1) + most


async def test_a_limit_without_a_reset_time_is_retried(start: Start) -> None:
    script = Script()
    script.plan("run_claude", raises(JobFailure(FailureCode.USAGE_LIMIT)))
    life = await start(script)
    assert await life.run_to_completion() == DONE
    assert policies.UNKNOWN_RESET <= await life.took() < policies.UNKNOWN_RESET * 1.5


@pytest.mark.failure(FailureCode.CLAUDE_OVERLOADED)
async def test_an_overload_is_retried_for_two_hours(start: Start) -> None:
    script = Script()
    tries = len(policies.OVERLOAD_BACKOFF) + 1
    overloaded = raises(JobFailure(FailureCode.CLAUDE_OVERLOADED, transient=True))
    script.plan("run_claude", *[overloaded] * tries)
    life = await start(script)
    result = await life.run_to_completion()
    assert result.failure_code is FailureCode.CLAUDE_OVERLOADED
    assert script.count("run_claude") == tries
    assert timedelta(hours=2) <= await life.took() < timedelta(hours=3)
