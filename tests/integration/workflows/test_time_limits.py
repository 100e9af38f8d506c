"""The time limits of a job. Each fails the job with its own name, and none is reset."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType

from activities.claude import RunClaudeInput
from activities.workspaces import PublishResult
from domain.errors import JobFailure, timed_out
from domain.failures import FailureCode, TimeLimit
from domain.jobs import JobOptions, JobStatus, JobType
from tests.integration.workflows.harness import LIMITS, Harness, StartedJob, new_job
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows import policies
from workflows.stopwatch import Stopwatch

KILLED = JobFailure(FailureCode.CLAUDE_FAILED, transient=True)
SOON = timedelta(seconds=0.5)


async def ended_by(job: StartedJob, time_limit: TimeLimit) -> None:
    """Check that the job failed, and because of which time limit."""
    result = await job.result()
    assert (result.status, result.failure_code) == (JobStatus.FAILED, FailureCode.TIMED_OUT)
    assert result.error == time_limit.sentence
    assert [ending.time_limit for ending in job.script.endings] == [time_limit]


async def after(seconds: float, request: Any) -> None:
    await asyncio.sleep(seconds)
    raise KILLED


def limits_given(script: Script) -> list[RunClaudeInput]:
    found: list[RunClaudeInput] = script.requests["run_claude"]
    return found


async def test_the_queue_limit_ends_the_wait_for_a_slot(harness: Harness) -> None:
    script = Script()
    script.plan("hold_slot", Gate())
    job = await harness.start(new_job(), script, replace(LIMITS, queue_timeout=SOON))
    await ended_by(job, TimeLimit.QUEUE)
    assert script.work == ["finish_job"]
    assert not script.endings[0].needs_cleanup


async def test_a_granted_slot_stops_the_queue_limit(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    job = await harness.start(new_job(), script, replace(LIMITS, queue_timeout=SOON))
    await gate.started()
    await asyncio.sleep(SOON.total_seconds())
    gate.open()
    assert (await job.result()).status is JobStatus.COMPLETED


async def test_the_host_gets_the_time_limit_that_runs_out_first(harness: Harness) -> None:
    by_turn = await harness.start(new_job(), Script(), replace(LIMITS, turn_timeout=SOON))
    by_job = await harness.start(
        new_job(), Script(), replace(LIMITS, job_timeout=timedelta(seconds=40))
    )
    for job, time_limit, maximum in ((by_turn, TimeLimit.TURN, 0.5), (by_job, TimeLimit.JOB, 40)):
        await job.result()
        [request] = limits_given(job.script)
        assert request.time_limit is time_limit
        assert maximum - 10 < request.limit_seconds <= maximum


async def test_a_jobs_own_time_limit_overrides_the_setting(harness: Harness) -> None:
    job = await harness.start(
        replace(new_job(), options=JobOptions(timeout_minutes=3)),
        Script(),
        replace(LIMITS, turn_timeout=timedelta(hours=1)),
    )
    await job.result()
    [request] = limits_given(job.script)
    assert request.time_limit is TimeLimit.JOB
    assert 170 < request.limit_seconds <= 180


async def test_a_time_limit_reported_by_the_host_fails_the_job(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", raises(timed_out(TimeLimit.SILENCE)))
    await ended_by(await harness.code_job(script), TimeLimit.SILENCE)
    assert script.count("run_claude") == 1


@pytest.mark.parametrize("job_type", JobType)
async def test_attempts_share_the_time_of_their_turn(harness: Harness, job_type: JobType) -> None:
    script = Script()
    script.plan("run_claude", *[lambda request: after(0.3, request)] * 3)
    job = await harness.start(new_job(job_type), script, replace(LIMITS, turn_timeout=SOON))
    await ended_by(job, TimeLimit.TURN)
    given = [request.limit_seconds for request in limits_given(script)]
    assert len(given) == 2
    assert given[0] == pytest.approx(0.5)
    assert 0 < given[1] < 0.25


async def test_the_time_on_hosts_is_added_up_over_leases(harness: Harness) -> None:
    script = Script("a", "a-restarted")
    gate = Gate()
    script.plan("run_claude", gate)
    job = await harness.code_job(script)
    await gate.started()
    await asyncio.sleep(1)
    script.stop_host()
    await job.result()
    first, second = (request.limit_seconds for request in limits_given(script))
    assert second < first - 1


async def test_preparing_is_limited_by_the_jobs_time(harness: Harness) -> None:
    script = Script()
    script.plan("prepare", Gate())
    job = await harness.start(new_job(), script, replace(LIMITS, job_timeout=SOON))
    await ended_by(job, TimeLimit.JOB)
    assert script.work == ["prepare", "finish_job", "clean_up"]


async def test_a_host_that_ignores_the_time_limit_does_not_hold_the_job(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "TURN_GRACE", timedelta())
    script = Script()
    script.plan("run_claude", Gate())
    job = await harness.start(new_job(), script, replace(LIMITS, turn_timeout=SOON))
    await ended_by(job, TimeLimit.TURN)
    assert script.count("stop_work") == 1


async def test_every_turn_of_a_conversation_has_its_own_time_limit(harness: Harness) -> None:
    script = Script()
    job = await harness.start(
        new_job(JobType.TASK), script, replace(LIMITS, turn_timeout=timedelta(seconds=5))
    )
    script.plan("run_claude", returns())
    await job.called("wait_for_user")
    await job.send()
    await job.called("wait_for_user", 2)
    await job.complete()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert [request.limit_seconds for request in limits_given(script)] == [5, 5]


async def test_finished_work_is_published_after_the_jobs_time_limit(harness: Harness) -> None:
    """The host changes while the work is published."""
    script = Script("a", "a-restarted")
    gate = Gate(returns(PublishResult("c0ffee")))
    script.plan("publish", gate)
    job = await harness.start(new_job(), script, replace(LIMITS, job_timeout=timedelta(seconds=1)))
    await gate.started()
    await asyncio.sleep(1.2)
    script.stop_host()
    await job.gave_up("publish")
    gate.open()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.count("run_claude") == 1


async def test_a_message_at_the_idle_limit_is_answered(harness: Harness) -> None:
    """A message that the API accepted reaches Claude even if the idle limit runs out."""
    script = Script()
    accepting = Gate(returns(True))
    script.plan("accept_message", accepting)
    limits = replace(LIMITS, task_idle_timeout=timedelta(seconds=1))
    job = await harness.start(new_job(JobType.TASK), script, limits)
    await job.called("wait_for_user")
    sending = asyncio.create_task(job.send())
    await accepting.started()
    await job.reached(EventType.EVENT_TYPE_TIMER_FIRED)
    accepting.open()
    message = await sending
    await job.complete()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.seen == [message]


def test_stopping_the_stopwatch_of_an_evicted_workflow_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Stopwatch()
    monkeypatch.setattr(workflow, "time", lambda: 5.0)
    watch.start()
    monkeypatch.undo()
    watch.stop()
