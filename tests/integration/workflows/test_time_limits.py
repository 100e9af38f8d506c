"""The clocks of a job: each ends it with its own name, and nothing sets one back."""

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
from tests.integration.workflows.lab import LIMITS, Lab, StartedJob, a_job
from tests.integration.workflows.scripts import Gate, Script, fail, give
from workflows import policies
from workflows.stopwatch import Stopwatch

KILLED = JobFailure(FailureCode.CLAUDE_FAILED, transient=True)
SOON = timedelta(seconds=0.5)


async def ended_by(job: StartedJob, clock: TimeLimit) -> None:
    """The job has failed, and says which clock it was."""
    result = await job.result()
    assert (result.status, result.failure_code) == (JobStatus.FAILED, FailureCode.TIMED_OUT)
    assert result.error == clock.sentence
    assert [ending.time_limit for ending in job.script.endings] == [clock]


async def after(seconds: float, request: Any) -> None:
    await asyncio.sleep(seconds)
    raise KILLED


def limits_given(script: Script) -> list[RunClaudeInput]:
    found: list[RunClaudeInput] = script.requests["run_claude"]
    return found


async def test_a_wait_for_a_slot_may_be_limited(lab: Lab) -> None:
    script = Script()
    script.plan("hold_slot", Gate())
    job = await lab.start(a_job(), script, replace(LIMITS, queue_timeout=SOON))
    await ended_by(job, TimeLimit.QUEUE)
    assert script.work == ["finish_job"]
    assert not script.endings[0].needs_cleanup


async def test_a_slot_that_was_granted_stops_the_clock_of_the_queue(lab: Lab) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    job = await lab.start(a_job(), script, replace(LIMITS, queue_timeout=SOON))
    await gate.begun()
    await asyncio.sleep(SOON.total_seconds())
    gate.open()
    assert (await job.result()).status is JobStatus.COMPLETED


async def test_the_machine_is_told_which_clock_runs_out_first(lab: Lab) -> None:
    by_turn = await lab.start(a_job(), Script(), replace(LIMITS, turn_timeout=SOON))
    by_job = await lab.start(a_job(), Script(), replace(LIMITS, job_timeout=timedelta(seconds=40)))
    for job, clock, most in ((by_turn, TimeLimit.TURN, 0.5), (by_job, TimeLimit.JOB, 40)):
        await job.result()
        [request] = limits_given(job.script)
        assert request.time_limit is clock
        assert most - 10 < request.limit_seconds <= most


async def test_a_jobs_own_limit_comes_before_the_setting(lab: Lab) -> None:
    job = await lab.start(
        replace(a_job(), options=JobOptions(timeout_minutes=3)),
        Script(),
        replace(LIMITS, turn_timeout=timedelta(hours=1)),
    )
    await job.result()
    [request] = limits_given(job.script)
    assert request.time_limit is TimeLimit.JOB
    assert 170 < request.limit_seconds <= 180


async def test_what_the_machine_says_of_a_clock_is_the_jobs_end(lab: Lab) -> None:
    script = Script()
    script.plan("run_claude", fail(timed_out(TimeLimit.SILENCE)))
    await ended_by(await lab.code_job(script), TimeLimit.SILENCE)
    assert script.count("run_claude") == 1


@pytest.mark.parametrize("job_type", JobType)
async def test_attempts_share_the_time_of_their_turn(lab: Lab, job_type: JobType) -> None:
    script = Script()
    script.plan("run_claude", *[lambda request: after(0.3, request)] * 3)
    job = await lab.start(a_job(job_type), script, replace(LIMITS, turn_timeout=SOON))
    await ended_by(job, TimeLimit.TURN)
    given = [request.limit_seconds for request in limits_given(script)]
    assert len(given) == 2
    assert given[0] == pytest.approx(0.5)
    assert 0 < given[1] < 0.25


async def test_the_time_on_machines_is_added_up_over_leases(lab: Lab) -> None:
    script = Script("a", "a-restarted")
    gate = Gate()
    script.plan("run_claude", gate)
    job = await lab.code_job(script)
    await gate.begun()
    await asyncio.sleep(1)
    script.stop_machine()
    await job.result()
    first, second = (request.limit_seconds for request in limits_given(script))
    assert second < first - 1


async def test_a_fetch_takes_no_more_time_than_the_job_has(lab: Lab) -> None:
    script = Script()
    script.plan("prepare", Gate())
    job = await lab.start(a_job(), script, replace(LIMITS, job_timeout=SOON))
    await ended_by(job, TimeLimit.JOB)
    assert script.work == ["prepare", "finish_job", "clean_up"]


async def test_a_machine_that_does_not_keep_the_limit_is_not_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "TURN_GRACE", timedelta())
    script = Script()
    script.plan("run_claude", Gate())
    job = await lab.start(a_job(), script, replace(LIMITS, turn_timeout=SOON))
    await ended_by(job, TimeLimit.TURN)
    assert script.count("stop_work") == 1


async def test_every_turn_of_a_conversation_has_its_own_time(lab: Lab) -> None:
    script = Script()
    job = await lab.start(
        a_job(JobType.TASK), script, replace(LIMITS, turn_timeout=timedelta(seconds=5))
    )
    script.plan("run_claude", give())
    await job.called("wait_for_user")
    await job.send()
    await job.called("wait_for_user", 2)
    await job.complete()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert [request.limit_seconds for request in limits_given(script)] == [5, 5]


async def test_finished_work_is_published_after_the_jobs_time(lab: Lab) -> None:
    """Its machine changes while it is published."""
    script = Script("a", "a-restarted")
    gate = Gate(give(PublishResult("c0ffee")))
    script.plan("publish", gate)
    job = await lab.start(a_job(), script, replace(LIMITS, job_timeout=timedelta(seconds=1)))
    await gate.begun()
    await asyncio.sleep(1.2)
    script.stop_machine()
    await job.gave_up("publish")
    gate.open()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.count("run_claude") == 1


async def test_a_message_that_comes_in_the_last_moment_is_answered(lab: Lab) -> None:
    """What was answered 200 reaches Claude, also when the idle clock rings meanwhile."""
    script = Script()
    accepting = Gate(give(True))
    script.plan("accept_message", accepting)
    limits = replace(LIMITS, task_idle_timeout=timedelta(seconds=1))
    job = await lab.start(a_job(JobType.TASK), script, limits)
    await job.called("wait_for_user")
    sending = asyncio.create_task(job.send())
    await accepting.begun()
    await job.reached(EventType.EVENT_TYPE_TIMER_FIRED)
    accepting.open()
    message = await sending
    await job.complete()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.seen == [message]


def test_a_workflow_that_is_dropped_from_memory_has_no_clock_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Stopwatch()
    monkeypatch.setattr(workflow, "time", lambda: 5.0)
    watch.start()
    monkeypatch.undo()
    watch.stop()
