"""Usage limits and overload: the job waits without a slot and resumes where it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.api.enums.v1 import EventType

from activities.claude import RunClaudeResult
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import JobStatus, JobType, Outcome
from tests.integration.workflows.harness import Harness, new_job
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows import policies
from workflows.steps import JobResult

DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
CANCELLED = JobResult(JobStatus.CANCELLED)
LIMITED_TURN = ["prepare", "run_claude", "wait_for_limit", "end_limit_wait"]


def limited(resets_at: datetime | None = None) -> JobFailure:
    return JobFailure(FailureCode.USAGE_LIMIT, "The limit is reached.", resets_at=resets_at)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_job_holds_no_slot_while_it_waits_for_a_usage_limit(harness: Harness) -> None:
    script = Script()
    resets_at = soon(1.5)
    script.plan("run_claude", raises(limited(resets_at)))
    job = await harness.code_job(script)
    assert await job.result() == DONE
    assert datetime.now(UTC) >= resets_at
    steps = ["publish", "open_pull_request", "finish_job", "clean_up"]
    assert script.work == [*LIMITED_TURN, "prepare", "run_claude", *steps]
    held = [call for call in script.calls if call in {"hold_slot", "release_slot"}]
    assert held == ["hold_slot", "release_slot"] * 2
    [wait] = script.requests["wait_for_limit"]
    assert wait.reason == "The limit is reached."
    assert resets_at <= wait.resumes_at < resets_at + timedelta(seconds=0.5)
    assert [turn.attempt for turn in script.requests["run_claude"]] == [1, 2]


async def test_the_job_returns_to_the_host_with_its_work(harness: Harness) -> None:
    script = Script("c", "b")
    script.plan("run_claude", raises(limited()))
    assert await (await harness.code_job(script)).result() == DONE
    # No worker polls for `c`, so another host starts again.
    assert script.asked == ["slots", "slots"]
    returned = Script("a", "a-restarted")
    returned.plan("run_claude", raises(limited()))
    assert await (await harness.code_job(returned)).result() == DONE
    assert returned.asked == ["slots", "slots-a"]


async def test_a_usage_limit_is_retried_without_end(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", *[raises(limited(soon(-60)))] * 8)
    assert await (await harness.code_job(script)).result() == DONE
    assert script.count("wait_for_limit") == 8


async def test_an_implausible_reset_time_fails_the_job(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", raises(limited(soon(30 * 86400))))
    result = await (await harness.code_job(script)).result()
    assert (result.status, result.failure_code) == (JobStatus.FAILED, FailureCode.USAGE_LIMIT)
    assert script.count("wait_for_limit") == 0


@pytest.mark.parametrize("job_type", JobType)
async def test_a_job_is_cancelled_while_it_waits_for_a_limit(
    harness: Harness, job_type: JobType
) -> None:
    script = Script()
    script.plan("run_claude", raises(limited(soon(3600))))
    job = await harness.start(new_job(job_type), script)
    await job.reached(EventType.EVENT_TYPE_TIMER_STARTED)
    await job.cancel()
    assert await job.result() == CANCELLED
    assert script.count("run_claude") == 1
    assert script.count("release_slot") == 1
    assert script.count("clean_up") == 1


async def test_a_message_during_the_wait_belongs_to_the_same_turn(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", raises(limited(soon(1.5))))
    job = await harness.task_job(script)
    await job.called("release_slot")
    message = await job.send()
    await job.complete()
    assert await job.result() == JobResult(JobStatus.COMPLETED, Outcome.ANSWERED)
    assert [turn.turn for turn in script.requests["run_claude"]] == [1, 1]
    assert script.requests["run_claude"][1].message_ids == [message]
    assert script.seen == [message]


async def test_each_turn_of_a_conversation_has_its_own_backoff(harness: Harness) -> None:
    script = Script()
    overloaded = raises(JobFailure(FailureCode.CLAUDE_OVERLOADED, transient=True))
    limit = len(policies.OVERLOAD_BACKOFF)
    first, second = [overloaded] * limit, [overloaded] * limit
    script.plan("run_claude", *first, returns(RunClaudeResult([])), *second)
    job = await harness.task_job(script)
    await job.called("wait_for_user")
    await job.send()
    await job.called("wait_for_user", 2)
    await job.complete()
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.count("wait_for_limit") == 2 * limit


async def test_a_host_lost_after_a_return_is_not_preferred_again(harness: Harness) -> None:
    script = Script("a", "a-restarted", "b")
    gate = Gate()
    script.plan("run_claude", raises(limited()), gate)
    job = await harness.code_job(script)
    await gate.started()
    script.crash_host()
    assert await job.result() == DONE
    assert script.asked == ["slots", "slots-a", "slots"]
