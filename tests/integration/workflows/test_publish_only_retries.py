"""Retries that only publish kept work, without Claude."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from activities.pull_requests import OpenPullRequestResult
from activities.workspaces import PrepareResult, PublishResult
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Job, JobStatus, Outcome, RetryFrom
from tests.integration.workflows.harness import Harness, new_job
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows.steps import JobResult

DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
STEPS = ["prepare", "publish", "open_pull_request"]


async def test_the_work_is_published_without_claude(harness: Harness) -> None:
    script = Script()
    job = await harness.start(replace(new_job(), retry_from=RetryFrom.PUBLISH, host="a"), script)
    assert await job.result() == DONE
    assert script.work == [*STEPS, "finish_job", "clean_up"]
    assert script.asked == ["slots-a"]
    [request] = script.requests["hold_slot"]
    assert not request.needs_claude


async def test_a_job_without_claude_has_the_highest_priority(harness: Harness) -> None:
    async def priority_of(job: Job) -> int:
        started = await harness.start(job, Script())
        assert await started.result() == DONE
        events = (await started.handle.fetch_history()).events
        asked = [event.activity_task_scheduled_event_attributes for event in events]
        return next(
            each.priority.priority_key for each in asked if each.activity_type.name == "hold_slot"
        )

    default = replace(new_job(), priority=4)
    publishing = replace(default, id=new_job().id, retry_from=RetryFrom.PUBLISH)
    assert [await priority_of(job) for job in (publishing, default)] == [1, 0]


async def test_another_host_publishes_if_the_preferred_host_is_gone(harness: Harness) -> None:
    script = Script("b")
    job = await harness.start(replace(new_job(), retry_from=RetryFrom.PUBLISH, host="c"), script)
    assert await job.result() == DONE
    assert script.work == [*STEPS, "finish_job", "clean_up"]
    assert script.asked == ["slots"]


async def test_a_host_that_stops_costs_no_attempt(harness: Harness) -> None:
    async def at(step: str, value: object) -> None:
        script = Script("a", "b")
        gate = Gate(returns(value))
        script.plan(step, gate)
        job = await harness.start(
            replace(new_job(), retry_from=RetryFrom.PUBLISH, host="a"), script
        )
        await gate.started()
        script.stop_host()
        gate.open()
        assert await job.result() == DONE
        assert script.count("run_claude") == 0

    values = (
        PrepareResult("b" * 40, False, existed=True),
        PublishResult("c0ffee"),
        OpenPullRequestResult(1, "https://x"),
    )
    await asyncio.gather(*map(at, STEPS, values))


async def test_the_retry_fails_if_the_kept_work_is_gone(harness: Harness) -> None:
    script = Script()
    script.plan("prepare", raises(JobFailure(FailureCode.GIT_FAILED, "It is gone.")))
    job = await harness.start(replace(new_job(), retry_from=RetryFrom.PUBLISH, host="a"), script)
    result = await job.result()
    assert result == JobResult(JobStatus.FAILED, None, FailureCode.GIT_FAILED, "It is gone.")
