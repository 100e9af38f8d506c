"""How a code job ends, depending on the results of its steps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from activities.claude import RunClaudeInput
from activities.workspaces import PrepareResult, PublishResult
from domain.errors import DependencyUnavailable, JobFailure, LeaseLost, OrchestratorError
from domain.failures import FailureCode
from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.harness import Harness
from tests.integration.workflows.scripts import Script, raises, returns
from workflows import policies
from workflows.steps import JobResult

STEPS = ["prepare", "run_claude", "publish", "open_pull_request"]
DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
OVERLOADED = JobFailure(FailureCode.CLAUDE_OVERLOADED, transient=True)


def failed(code: FailureCode, error: str = "") -> JobResult:
    return JobResult(JobStatus.FAILED, None, code, error or code.sentence)


async def test_each_step_runs_once_and_in_order(harness: Harness) -> None:
    job = await harness.code_job()
    assert await job.result() == DONE
    assert job.script.steps == ["hold_slot", *STEPS, "finish_job", "clean_up", "release_slot"]


async def test_a_job_without_changes_opens_no_pull_request(harness: Harness) -> None:
    script = Script()
    script.plan("publish", returns(PublishResult(None)))
    job = await harness.code_job(script)
    assert await job.result() == JobResult(JobStatus.COMPLETED, Outcome.NO_CHANGES)
    assert script.work == ["prepare", "run_claude", "publish", "finish_job", "clean_up"]


async def test_the_pull_request_is_opened_for_the_pushed_commit(harness: Harness) -> None:
    script = Script()
    script.plan("publish", returns(PublishResult("c0ffee")))
    job = await harness.code_job(script)
    await job.result()
    [request] = script.requests["open_pull_request"]
    assert request.sha == "c0ffee"
    assert (request.lease.job_id, request.lease.number) == (job.id, 1)


async def test_a_failed_step_fails_the_job_with_its_code_and_text(harness: Harness) -> None:
    async def at(step: str) -> None:
        script = Script()
        script.plan(step, raises(JobFailure(FailureCode.GIT_FAILED, "Git said no.")))
        job = await harness.code_job(script)
        assert await job.result() == failed(FailureCode.GIT_FAILED, "Git said no.")
        done = STEPS[: STEPS.index(step) + 1]
        assert script.steps == ["hold_slot", *done, "finish_job", "clean_up", "release_slot"]
        assert script.endings[0].needs_cleanup

    await asyncio.gather(*map(at, STEPS))


async def test_a_step_is_retried_without_repeating_earlier_steps(harness: Harness) -> None:
    async def at(step: str) -> None:
        script = Script()
        flaky = raises(JobFailure(FailureCode.GITHUB_UNAVAILABLE, transient=True))
        script.plan(step, flaky, flaky)
        job = await harness.code_job(script)
        assert await job.result() == DONE
        assert script.count(step) == 3
        assert script.count("run_claude") == 1
        assert script.count("hold_slot") == 1

    await asyncio.gather(*map(at, ["publish", "prepare", "open_pull_request"]))


async def test_the_last_failure_is_reported_when_retries_are_exhausted(harness: Harness) -> None:
    script = Script()
    attempts = policies.PUBLISH.retry.maximum_attempts
    flaky = [
        raises(JobFailure(FailureCode.GITHUB_UNAVAILABLE, f"Try {number}.", transient=True))
        for number in range(1, attempts + 1)
    ]
    script.plan("publish", *flaky)
    job = await harness.code_job(script)
    assert await job.result() == failed(FailureCode.GITHUB_UNAVAILABLE, f"Try {attempts}.")
    assert script.count("publish") == attempts
    assert script.work[-2:] == ["finish_job", "clean_up"]


async def test_claude_runs_again_after_an_overload(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", raises(OVERLOADED), raises(OVERLOADED))
    job = await harness.code_job(script)
    assert await job.result() == DONE
    requests: list[RunClaudeInput] = script.requests["run_claude"]
    assert [(request.turn, request.attempt) for request in requests] == [(1, 1), (1, 2), (1, 3)]
    assert script.count("wait_for_limit") == 2
    assert script.asked == ["slots", "slots-a", "slots-a"]


async def test_a_lasting_overload_fails_the_job(harness: Harness) -> None:
    script = Script()
    tries = len(policies.OVERLOAD_BACKOFF) + 1
    script.plan("run_claude", *[raises(OVERLOADED)] * tries)
    job = await harness.code_job(script)
    assert await job.result() == failed(FailureCode.CLAUDE_OVERLOADED)
    assert script.count("run_claude") == tries


async def test_an_unexpected_error_fails_the_job(harness: Harness) -> None:
    async def at(step: str) -> None:
        script = Script()
        script.plan(step, *[raises(ValueError("a bug"))] * 3)
        job = await harness.code_job(script)
        assert await job.result() == failed(FailureCode.INTERNAL, "a bug")
        assert script.count("release_slot") == (0 if step == "hold_slot" else 1)

    await asyncio.gather(*map(at, ["hold_slot", *STEPS]))


async def test_an_unexpected_product_error_is_reported_as_internal(harness: Harness) -> None:
    script = Script()
    script.plan("prepare", raises(OrchestratorError("Something is not as it should be.")))
    job = await harness.code_job(script)
    assert await job.result() == failed(FailureCode.INTERNAL, "Something is not as it should be.")
    assert script.count("prepare") == 1


@pytest.mark.parametrize("system", ["store", "temporal"])
async def test_the_job_continues_under_the_next_lease_after_an_outage(
    harness: Harness, system: str
) -> None:
    async def at(step: str) -> None:
        script = Script()
        tries = 1 if step in {"hold_slot", "run_claude"} else 3
        script.plan(step, *[raises(DependencyUnavailable("It does not answer.", system))] * tries)
        job = await harness.code_job(script)
        assert await job.result() == DONE
        assert script.count(step) == tries + 1
        assert script.count("hold_slot") == 2
        assert script.count("run_claude") == (2 if step == "run_claude" else 1)

    await asyncio.gather(*map(at, ["hold_slot", *STEPS]))


async def test_a_slot_is_requested_until_the_store_is_available(harness: Harness) -> None:
    script = Script()
    outage = raises(DependencyUnavailable("The store does not answer.", "store"))
    script.plan("hold_slot", *[outage] * 7)
    job = await harness.code_job(script)
    assert await job.result() == DONE
    assert [request.lease.number for request in script.requests["hold_slot"]] == list(range(1, 9))


async def test_the_backoff_is_reset_after_a_long_wait_for_a_slot(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backoff grows only while requests are refused at once."""
    moment, long = timedelta(milliseconds=20), timedelta(hours=1)
    monkeypatch.setattr(policies, "requeue_backoff", lambda: iter([moment, long]))
    monkeypatch.setattr(policies, "MAX_REQUEUE_BACKOFF", timedelta(0))
    script = Script()
    script.plan("hold_slot", *[raises(LeaseLost("A usage limit lasts."))] * 3)
    job = await harness.code_job(script)
    assert await job.result() == DONE
    assert script.count("hold_slot") == 4


async def test_a_missing_program_is_reported_by_name(harness: Harness) -> None:
    script = Script()
    script.plan("prepare", *[raises(DependencyUnavailable("Install git.", "git"))] * 3)
    job = await harness.code_job(script)
    assert await job.result() == failed(FailureCode.INTERNAL, "Install git.")


async def test_a_worktree_that_cannot_be_removed_is_left_to_the_sweeper(harness: Harness) -> None:
    script = Script()
    attempts = policies.CLEAN_UP.retry.maximum_attempts * (1 + policies.CLEAN_UP_LOOKUPS)
    script.plan("clean_up", *[raises(OSError("the disk"))] * attempts)
    job = await harness.code_job(script)
    assert await job.result() == DONE
    assert script.calls[-2:] == ["forget_workspace", "release_slot"]
    assert script.count("clean_up") == attempts


async def test_a_failed_release_does_not_change_the_result(
    harness: Harness,
) -> None:
    script = Script()
    script.plan("release_slot", *[raises(ValueError("a bug"))] * 2)
    job = await harness.code_job(script)
    assert await job.result() == DONE


async def test_the_result_is_the_status_in_the_store(harness: Harness) -> None:
    script = Script()

    async def finished_by_somebody_else(request: object) -> None:
        script.row = JobStatus.FAILED

    script.plan("finish_job", finished_by_somebody_else)
    job = await harness.code_job(script)
    assert (await job.result()).status is JobStatus.FAILED


async def test_withdrawing_deletes_only_a_branch_that_the_job_created(harness: Harness) -> None:
    async def that(continues: bool) -> None:
        script = Script()
        script.plan("prepare", returns(PrepareResult("b" * 40, continues, existed=True)))

        async def cancelled_by_the_api(request: object) -> None:
            script.row = JobStatus.CANCELLED

        script.plan("open_pull_request", cancelled_by_the_api)
        job = await harness.code_job(script)
        assert (await job.result()).status is JobStatus.CANCELLED
        [request] = script.requests["withdraw"]
        assert request.delete_branch is not continues

    await asyncio.gather(that(True), that(False))
