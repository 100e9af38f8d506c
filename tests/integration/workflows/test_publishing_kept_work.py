"""A retry that begins with publishing: the work is there, and Claude is not asked again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from activities.pull_requests import OpenPullRequestResult
from activities.workspaces import PrepareResult, PublishResult
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Job, JobStatus, Outcome, RetryFrom
from tests.integration.workflows.lab import Lab, a_job
from tests.integration.workflows.scripts import Gate, Script, fail, give
from workflows.steps import JobResult

DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
STEPS = ["prepare", "publish", "open_pull_request"]


async def test_the_work_is_published_without_claude(lab: Lab) -> None:
    script = Script()
    job = await lab.start(replace(a_job(), retry_from=RetryFrom.PUBLISH, host="a"), script)
    assert await job.result() == DONE
    assert script.work == [*STEPS, "finish_job", "clean_up"]
    assert script.asked == ["slots-a"]
    [request] = script.requests["hold_slot"]
    assert not request.needs_claude


async def test_what_needs_no_claude_is_polled_before_jobs_that_a_limit_may_hold(lab: Lab) -> None:
    async def priority_of(job: Job) -> int:
        started = await lab.start(job, Script())
        assert await started.result() == DONE
        events = (await started.handle.fetch_history()).events
        asked = [event.activity_task_scheduled_event_attributes for event in events]
        return next(
            each.priority.priority_key for each in asked if each.activity_type.name == "hold_slot"
        )

    usual = replace(a_job(), priority=4)
    publishing = replace(usual, id=a_job().id, retry_from=RetryFrom.PUBLISH)
    assert [await priority_of(job) for job in (publishing, usual)] == [1, 0]


async def test_another_machine_does_it_when_that_one_is_gone(lab: Lab) -> None:
    script = Script("b")
    job = await lab.start(replace(a_job(), retry_from=RetryFrom.PUBLISH, host="c"), script)
    assert await job.result() == DONE
    assert script.work == [*STEPS, "finish_job", "clean_up"]
    assert script.asked == ["slots"]


async def test_a_machine_that_stops_costs_nothing(lab: Lab) -> None:
    async def at(step: str, value: object) -> None:
        script = Script("a", "b")
        gate = Gate(give(value))
        script.plan(step, gate)
        job = await lab.start(replace(a_job(), retry_from=RetryFrom.PUBLISH, host="a"), script)
        await gate.begun()
        script.stop_machine()
        gate.open()
        assert await job.result() == DONE
        assert script.count("run_claude") == 0

    values = (
        PrepareResult("b" * 40, False, existed=True),
        PublishResult("c0ffee"),
        OpenPullRequestResult(1, "https://x"),
    )
    await asyncio.gather(*map(at, STEPS, values))


async def test_work_that_is_gone_fails_the_retry(lab: Lab) -> None:
    script = Script()
    script.plan("prepare", fail(JobFailure(FailureCode.GIT_FAILED, "It is gone.")))
    job = await lab.start(replace(a_job(), retry_from=RetryFrom.PUBLISH, host="a"), script)
    result = await job.result()
    assert result == JobResult(JobStatus.FAILED, None, FailureCode.GIT_FAILED, "It is gone.")
