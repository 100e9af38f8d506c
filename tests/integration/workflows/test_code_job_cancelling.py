"""Cancelling a code job at each of its steps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus

from activities.pull_requests import OpenPullRequestResult
from activities.workspaces import PublishResult
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.harness import Harness, StartedJob
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows import policies
from workflows.steps import JobResult

CANCELLED = JobResult(JobStatus.CANCELLED)


async def cancelled_at(harness: Harness, step: str, script: Script | None = None) -> StartedJob:
    """Return a job that was cancelled while the step ran. The step ends only when stopped."""
    script = script or Script()
    gate = Gate()
    script.plan(step, gate)
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    return job


async def closed(job: StartedJob) -> WorkflowExecutionStatus | None:
    return (await job.handle.describe()).status


async def test_a_queued_job_is_cancelled_without_a_slot(harness: Harness) -> None:
    job = await cancelled_at(harness, "hold_slot")
    assert await job.result() == CANCELLED
    assert job.script.calls == ["hold_slot", "finish_job"]
    assert not job.script.endings[0].needs_cleanup
    assert await closed(job) is WorkflowExecutionStatus.COMPLETED


async def test_a_job_is_cancelled_while_it_waits_for_another_slot(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", Gate())
    second = Gate()

    job = await harness.code_job(script)
    await job.called("run_claude")
    script.plan("hold_slot", second)
    script.stop_host()
    await second.started()
    await job.cancel()
    assert await job.result() == CANCELLED
    assert script.work[-3:] == ["requeue", "finish_job", "clean_up"]
    assert "withdraw" not in script.calls


async def test_running_work_is_stopped_before_the_worktree_is_removed(harness: Harness) -> None:
    async def at(step: str) -> None:
        job = await cancelled_at(harness, step)
        assert await job.result() == CANCELLED
        calls = job.script.calls
        assert calls.index("stop_work") < calls.index("clean_up") < calls.index("release_slot")
        assert not {"publish", "open_pull_request", "withdraw"} & set(calls)
        assert calls.count("finish_job") == calls.count("clean_up") == 1
        assert calls.count("release_slot") == 1

    await asyncio.gather(at("prepare"), at("run_claude"))


async def test_a_push_that_has_begun_is_finished_and_withdrawn(harness: Harness) -> None:
    script = Script()
    gate = Gate(returns(PublishResult("c0ffee")))
    script.plan("publish", gate)
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    await job.called("stop_work")
    assert "withdraw" not in script.calls
    assert "clean_up" not in script.calls
    gate.open()
    assert await job.result() == CANCELLED
    assert script.count("publish") == script.count("withdraw") == 1
    assert "open_pull_request" not in script.calls
    assert script.calls.index("release_slot") < script.calls.index("withdraw")


async def test_a_pull_request_that_is_being_opened_is_withdrawn(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("open_pull_request", gate)
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    await job.called("stop_work")
    assert "withdraw" not in script.calls
    gate.open()
    assert await job.result() == CANCELLED
    assert script.count("open_pull_request") == script.count("withdraw") == 1
    assert script.count("clean_up") == script.count("release_slot") == 1


async def test_a_push_that_waits_for_its_retry_is_not_retried(harness: Harness) -> None:
    script = Script()
    tries = asyncio.Semaphore(0)

    async def refused(request: object) -> None:
        tries.release()
        raise JobFailure(FailureCode.GITHUB_UNAVAILABLE, transient=True)

    gate = Gate(refused)
    script.plan("publish", gate)
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    await job.gave_up("publish")
    gate.open()
    assert await job.result() == CANCELLED
    assert script.count("publish") == 1
    assert script.count("withdraw") == 1


async def test_a_job_cancelled_after_its_pull_request_was_opened_is_withdrawn(
    harness: Harness,
) -> None:
    """The row is cancelled after the pull request was opened and before the job has finished."""

    async def at(step: str) -> None:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await harness.code_job(script)
        await gate.started()
        if step == "finish_job":
            script.row = JobStatus.CANCELLED
        await job.handle.cancel()
        await asyncio.sleep(0.2)
        gate.open()
        result = await job.result()
        is_cancelled = step == "finish_job"
        assert result.status is (JobStatus.CANCELLED if is_cancelled else JobStatus.COMPLETED)
        assert result.outcome is Outcome.PULL_REQUEST
        assert script.count("withdraw") == (1 if is_cancelled else 0)
        assert script.count("finish_job") == script.count("clean_up") == 1
        assert script.count("release_slot") == 1
        assert await closed(job) is WorkflowExecutionStatus.COMPLETED

    await asyncio.gather(*map(at, ["finish_job", "clean_up", "release_slot"]))


async def test_cancelling_in_the_web_ui_equals_cancelling_in_the_api(harness: Harness) -> None:
    async def at(step: str) -> None:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await harness.code_job(script)
        await gate.started()
        await job.handle.cancel()
        assert await job.result() == CANCELLED
        assert script.row is JobStatus.CANCELLED

    await asyncio.gather(*map(at, ["hold_slot", "prepare", "run_claude"]))


async def test_a_second_cancellation_changes_nothing(harness: Harness) -> None:
    script = Script()
    stopping = Gate()
    script.plan("stop_work", stopping)
    job = await cancelled_at(harness, "run_claude", script)
    await stopping.started()
    await job.handle.cancel()
    stopping.open()
    assert await job.result() == CANCELLED
    assert script.count("clean_up") == script.count("release_slot") == 1


async def test_cancelling_ends_the_wait_after_an_overload(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "OVERLOAD_BACKOFF", (timedelta(minutes=5),))
    script = Script()
    script.plan("run_claude", raises(JobFailure(FailureCode.CLAUDE_OVERLOADED, transient=True)))
    job = await harness.code_job(script)
    await job.reached(EventType.EVENT_TYPE_TIMER_STARTED)
    await job.cancel()
    assert await job.result() == CANCELLED
    assert script.count("run_claude") == 1


async def test_a_job_is_cancelled_while_its_host_dies(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    script.plan("find_host_queue", returns(None))
    script.plan("stop_work", *[Gate()] * 2)
    job = await harness.code_job(script)
    await gate.started()
    script.crash_host()
    await job.cancel()
    assert await job.result() == CANCELLED
    assert script.work[-2:] == ["finish_job", "forget_workspace"]


async def test_a_failed_withdrawal_keeps_no_slot(harness: Harness) -> None:
    script = Script()
    script.plan("withdraw", raises(JobFailure(FailureCode.GITHUB_AUTHENTICATION)))
    gate = Gate()
    script.plan("open_pull_request", gate)
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    gate.open()
    assert (await job.result()).status is JobStatus.CANCELLED
    assert script.count("release_slot") == 1
    assert await closed(job) is WorkflowExecutionStatus.COMPLETED


async def test_withdrawing_is_retried_until_it_succeeds(harness: Harness) -> None:
    script = Script()
    down = raises(JobFailure(FailureCode.GITHUB_UNAVAILABLE, transient=True))
    script.plan("withdraw", *[down] * 5)
    gate = Gate()
    script.plan("open_pull_request", gate)
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    gate.open()
    assert await job.result() == CANCELLED
    assert script.count("withdraw") == 6


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_branch_is_deleted_only_if_its_work_is_salvaged(
    harness: Harness, is_kept: bool
) -> None:
    script = Script()
    gate = Gate(returns(PublishResult("c0ffee")))
    script.plan("publish", gate)
    if not is_kept:
        lost = raises(JobFailure(FailureCode.DISK_FULL))
        script.plan("clean_up", *[lost] * 10)
        script.plan("find_host_queue", returns(None))
    job = await harness.code_job(script)
    await gate.started()
    await job.cancel()
    await job.called("stop_work")
    gate.open()
    assert await job.result() == CANCELLED
    [request] = script.requests["withdraw"]
    assert request.delete_branch is is_kept


@pytest.mark.parametrize("other", ["a-restarted", "b"])
async def test_a_branch_is_kept_if_its_work_is_on_another_host(
    harness: Harness, other: str
) -> None:
    """The host that only opens the pull request has no work to salvage."""
    script = Script("a", other)
    script.plan(
        "open_pull_request", Gate(), gate := Gate(returns(OpenPullRequestResult(1, "https://x")))
    )
    job = await harness.code_job(script)
    await job.called("open_pull_request")
    script.crash_host()
    await gate.started()
    await job.cancel()
    await job.called("stop_work")
    gate.open()
    assert await job.result() == CANCELLED
    [request] = script.requests["withdraw"]
    assert request.delete_branch is (other == "a-restarted")
