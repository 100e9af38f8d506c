"""How a code job ends when nothing disturbs it but its own steps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from activities.claude import RunClaudeInput
from activities.workspaces import PrepareResult, PublishResult
from domain.errors import DependencyUnavailable, JobFailure, LeaseLost, OrchestratorError
from domain.failures import FailureCode
from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.lab import Lab
from tests.integration.workflows.scripts import Script, fail, give
from workflows import policies
from workflows.steps import JobResult

STEPS = ["prepare", "run_claude", "publish", "open_pull_request"]
DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
OVERLOADED = JobFailure(FailureCode.CLAUDE_OVERLOADED, transient=True)


def failed(code: FailureCode, error: str = "") -> JobResult:
    return JobResult(JobStatus.FAILED, None, code, error or code.sentence)


async def test_the_steps_come_once_and_in_order(lab: Lab) -> None:
    job = await lab.code_job()
    assert await job.result() == DONE
    assert job.script.steps == ["hold_slot", *STEPS, "finish_job", "clean_up", "release_slot"]


async def test_nothing_to_publish_needs_no_pull_request(lab: Lab) -> None:
    script = Script()
    script.plan("publish", give(PublishResult(None)))
    job = await lab.code_job(script)
    assert await job.result() == JobResult(JobStatus.COMPLETED, Outcome.NO_CHANGES)
    assert script.work == ["prepare", "run_claude", "publish", "finish_job", "clean_up"]


async def test_what_was_pushed_is_what_the_pull_request_is_opened_for(lab: Lab) -> None:
    script = Script()
    script.plan("publish", give(PublishResult("c0ffee")))
    job = await lab.code_job(script)
    await job.result()
    [request] = script.requests["open_pull_request"]
    assert request.sha == "c0ffee"
    assert (request.lease.job_id, request.lease.number) == (job.id, 1)


async def test_a_step_that_fails_ends_the_job_with_its_code_and_text(lab: Lab) -> None:
    async def at(step: str) -> None:
        script = Script()
        script.plan(step, fail(JobFailure(FailureCode.GIT_FAILED, "Git said no.")))
        job = await lab.code_job(script)
        assert await job.result() == failed(FailureCode.GIT_FAILED, "Git said no.")
        done = STEPS[: STEPS.index(step) + 1]
        assert script.steps == ["hold_slot", *done, "finish_job", "clean_up", "release_slot"]
        assert script.endings[0].needs_cleanup

    await asyncio.gather(*map(at, STEPS))


async def test_a_step_is_tried_again_without_those_before_it(lab: Lab) -> None:
    async def at(step: str) -> None:
        script = Script()
        flaky = fail(JobFailure(FailureCode.GITHUB_UNAVAILABLE, transient=True))
        script.plan(step, flaky, flaky)
        job = await lab.code_job(script)
        assert await job.result() == DONE
        assert script.count(step) == 3
        assert script.count("run_claude") == 1
        assert script.count("hold_slot") == 1

    await asyncio.gather(*map(at, ["publish", "prepare", "open_pull_request"]))


async def test_trying_ends_with_the_last_failure(lab: Lab) -> None:
    script = Script()
    attempts = policies.PUBLISH.retry.maximum_attempts
    flaky = [
        fail(JobFailure(FailureCode.GITHUB_UNAVAILABLE, f"Try {number}.", transient=True))
        for number in range(1, attempts + 1)
    ]
    script.plan("publish", *flaky)
    job = await lab.code_job(script)
    assert await job.result() == failed(FailureCode.GITHUB_UNAVAILABLE, f"Try {attempts}.")
    assert script.count("publish") == attempts
    assert script.work[-2:] == ["finish_job", "clean_up"]


async def test_claude_is_run_again_after_an_overload(lab: Lab) -> None:
    script = Script()
    script.plan("run_claude", fail(OVERLOADED), fail(OVERLOADED))
    job = await lab.code_job(script)
    assert await job.result() == DONE
    requests: list[RunClaudeInput] = script.requests["run_claude"]
    assert [(request.turn, request.attempt) for request in requests] == [(1, 1), (1, 2), (1, 3)]
    assert script.count("wait_for_limit") == 2
    assert script.asked == ["slots", "slots-a", "slots-a"]


async def test_an_overload_that_lasts_fails_the_job(lab: Lab) -> None:
    script = Script()
    tries = len(policies.OVERLOAD_BACKOFF) + 1
    script.plan("run_claude", *[fail(OVERLOADED)] * tries)
    job = await lab.code_job(script)
    assert await job.result() == failed(FailureCode.CLAUDE_OVERLOADED)
    assert script.count("run_claude") == tries


async def test_a_fault_of_our_own_fails_the_job_and_never_hangs_it(lab: Lab) -> None:
    async def at(step: str) -> None:
        script = Script()
        script.plan(step, *[fail(ValueError("a bug"))] * 3)
        job = await lab.code_job(script)
        assert await job.result() == failed(FailureCode.INTERNAL, "a bug")
        assert script.count("release_slot") == (0 if step == "hold_slot" else 1)

    await asyncio.gather(*map(at, ["hold_slot", *STEPS]))


async def test_an_error_of_ours_that_no_job_should_see_is_internal(lab: Lab) -> None:
    script = Script()
    script.plan("prepare", fail(OrchestratorError("Something is not as it should be.")))
    job = await lab.code_job(script)
    assert await job.result() == failed(FailureCode.INTERNAL, "Something is not as it should be.")
    assert script.count("prepare") == 1


@pytest.mark.parametrize("system", ["store", "temporal"])
async def test_an_outage_is_waited_out_under_the_next_lease(lab: Lab, system: str) -> None:
    async def at(step: str) -> None:
        script = Script()
        tries = 1 if step in {"hold_slot", "run_claude"} else 3
        script.plan(step, *[fail(DependencyUnavailable("It does not answer.", system))] * tries)
        job = await lab.code_job(script)
        assert await job.result() == DONE
        assert script.count(step) == tries + 1
        assert script.count("hold_slot") == 2
        assert script.count("run_claude") == (2 if step == "run_claude" else 1)

    await asyncio.gather(*map(at, ["hold_slot", *STEPS]))


async def test_a_slot_is_asked_for_until_the_store_is_back(lab: Lab) -> None:
    script = Script()
    outage = fail(DependencyUnavailable("The store does not answer.", "store"))
    script.plan("hold_slot", *[outage] * 7)
    job = await lab.code_job(script)
    assert await job.result() == DONE
    assert [request.lease.number for request in script.requests["hold_slot"]] == list(range(1, 9))


async def test_a_job_that_waited_at_a_machine_for_long_asks_again_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses grow with refusals that come at once."""
    moment, long = timedelta(milliseconds=20), timedelta(hours=1)
    monkeypatch.setattr(policies, "requeue_backoff", lambda: iter([moment, long]))
    monkeypatch.setattr(policies, "MAX_REQUEUE_BACKOFF", timedelta(0))
    script = Script()
    script.plan("hold_slot", *[fail(LeaseLost("A usage limit lasts."))] * 3)
    job = await lab.code_job(script)
    assert await job.result() == DONE
    assert script.count("hold_slot") == 4


async def test_a_missing_program_is_named(lab: Lab) -> None:
    script = Script()
    script.plan("prepare", *[fail(DependencyUnavailable("Install git.", "git"))] * 3)
    job = await lab.code_job(script)
    assert await job.result() == failed(FailureCode.INTERNAL, "Install git.")


async def test_a_worktree_that_cannot_be_removed_is_left_to_the_sweep(lab: Lab) -> None:
    script = Script()
    attempts = policies.CLEAN_UP.retry.maximum_attempts * (1 + policies.CLEAN_UP_LOOKUPS)
    script.plan("clean_up", *[fail(OSError("the disk"))] * attempts)
    job = await lab.code_job(script)
    assert await job.result() == DONE
    assert script.calls[-2:] == ["forget_workspace", "release_slot"]
    assert script.count("clean_up") == attempts


async def test_a_slot_that_cannot_be_given_back_does_not_change_how_the_job_ended(
    lab: Lab,
) -> None:
    script = Script()
    script.plan("release_slot", *[fail(ValueError("a bug"))] * 2)
    job = await lab.code_job(script)
    assert await job.result() == DONE


async def test_the_status_that_the_store_has_is_the_result(lab: Lab) -> None:
    script = Script()

    async def finished_by_somebody_else(request: object) -> None:
        script.row = JobStatus.FAILED

    script.plan("finish_job", finished_by_somebody_else)
    job = await lab.code_job(script)
    assert (await job.result()).status is JobStatus.FAILED


async def test_whether_a_branch_is_the_jobs_own_is_told_when_it_is_taken_back(lab: Lab) -> None:
    async def that(continues: bool) -> None:
        script = Script()
        script.plan("prepare", give(PrepareResult("b" * 40, continues, existed=True)))

        async def cancelled_by_the_api(request: object) -> None:
            script.row = JobStatus.CANCELLED

        script.plan("open_pull_request", cancelled_by_the_api)
        job = await lab.code_job(script)
        assert (await job.result()).status is JobStatus.CANCELLED
        [request] = script.requests["withdraw"]
        assert request.delete_branch is not continues

    await asyncio.gather(that(True), that(False))
