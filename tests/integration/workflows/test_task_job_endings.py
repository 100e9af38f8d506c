"""Completing and cancelling a conversation at each of its steps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.job_records import FindHostQueueInput
from domain.errors import DependencyUnavailable
from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.harness import Harness, StartedJob
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows import policies
from workflows.steps import JobResult
from workflows.task_job import NOT_ACCEPTING

ANSWERED = JobResult(JobStatus.COMPLETED, Outcome.ANSWERED)
CANCELLED = JobResult(JobStatus.CANCELLED)


async def job_at(
    harness: Harness, step: str, script: Script | None = None
) -> tuple[StartedJob, Gate]:
    """Return a conversation that has reached a step of its first turn."""
    script = script or Script()
    gate = Gate(returns(True))
    script.plan(step, gate)
    job = await harness.task_job(script)
    await gate.started()
    return job, gate


async def waiting_job(harness: Harness) -> StartedJob:
    job = await harness.task_job()
    await job.called("wait_for_user")
    await job.reached(EventType.EVENT_TYPE_TIMER_STARTED)
    return job


async def test_completing_ends_a_waiting_conversation(harness: Harness) -> None:
    job = await waiting_job(harness)
    await job.complete()
    assert await job.result() == ANSWERED
    assert job.script.count("run_claude") == job.script.count("hold_slot") == 1
    assert job.script.count("record_completion") == job.script.count("clean_up") == 1


async def test_completing_lets_the_running_turn_end(harness: Harness) -> None:
    job, gate = await job_at(harness, "verify_unchanged")
    await job.complete()
    assert job.script.count("finish_job") == 0
    gate.open()
    assert await job.result() == ANSWERED
    assert job.script.count("run_claude") == 1
    assert job.script.count("wait_for_user") == 0


async def test_completing_before_the_first_turn_still_answers_the_prompt(harness: Harness) -> None:
    script = Script()
    busy = Gate(raises(DependencyUnavailable("It is down.", "store")))
    script.plan("hold_slot", busy)
    job = await harness.task_job(script)
    await busy.started()
    await job.complete()
    assert script.count("run_claude") == 0
    busy.open()
    assert await job.result() == ANSWERED
    assert script.count("run_claude") == 1


async def test_completing_is_idempotent(harness: Harness) -> None:
    job, gate = await job_at(harness, "verify_unchanged")
    await job.complete()
    await job.complete()
    gate.open()
    assert await job.result() == ANSWERED
    assert job.script.count("finish_job") == 1


async def test_no_message_is_accepted_while_the_conversation_ends(harness: Harness) -> None:
    job = await waiting_job(harness)
    gate = Gate()
    job.script.plan("finish_job", gate)
    await job.complete()
    await gate.started()
    for attempt in (job.send, job.complete):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await attempt()
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == NOT_ACCEPTING
    gate.open()
    await job.result()


async def test_updates_of_an_ended_conversation_are_rejected(harness: Harness) -> None:
    job = await waiting_job(harness)
    await job.complete()
    await job.result()
    for attempt in (job.send, job.complete):
        with pytest.raises(RPCError) as caught:
            await attempt()
        assert caught.value.status is RPCStatusCode.NOT_FOUND


async def test_completing_is_not_lost_when_a_new_run_starts(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "MESSAGES_PER_RUN", 1)
    script = Script()
    noting, delivering = Gate(), Gate(returns(False))
    script.plan("record_completion", noting)
    job = await harness.task_job(script)
    await job.called("wait_for_user")
    turn = Gate()
    script.plan("run_claude", turn)
    script.plan("deliver_message", delivering)
    await job.send()
    await turn.started()
    sending = asyncio.create_task(job.send())
    await delivering.started()
    turn.open()
    await job.called("release_slot", 2)
    completing = asyncio.create_task(job.complete())
    await asyncio.sleep(0.2)
    delivering.open()
    await sending
    noting.open()
    await completing
    assert await job.result() == ANSWERED


async def test_cancelling_a_waiting_conversation_removes_the_worktree(harness: Harness) -> None:
    job = await waiting_job(harness)
    await job.cancel()
    assert await job.result() == CANCELLED
    assert job.script.work[-2:] == ["finish_job", "clean_up"]
    assert job.script.endings[0].needs_cleanup


async def test_cancelling_stops_running_work(harness: Harness) -> None:
    async def at(step: str) -> None:
        job, _ = await job_at(harness, step)
        await job.cancel()
        assert await job.result() == CANCELLED
        calls = job.script.calls
        assert calls.index("stop_work") < calls.index("clean_up") < calls.index("release_slot")
        assert calls.count("clean_up") == calls.count("release_slot") == 1

    await asyncio.gather(*map(at, ["prepare", "run_claude", "verify_unchanged"]))


async def test_a_queued_conversation_is_cancelled_at_once(harness: Harness) -> None:
    job, _ = await job_at(harness, "hold_slot")
    await job.cancel()
    assert await job.result() == CANCELLED
    assert job.script.calls == ["hold_slot", "finish_job"]


async def test_cancelling_between_two_steps_is_not_a_failure(harness: Harness) -> None:
    """The interrupted step fails, but the job is cancelled."""

    async def at(step: str) -> None:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await harness.task_job(script)
        if step == "enqueue_turn":
            await job.called("wait_for_user")
            await job.send()
        await gate.started()
        await job.handle.cancel()
        assert await job.result() == CANCELLED
        assert script.row is JobStatus.CANCELLED
        assert script.count("clean_up") == 1

    await asyncio.gather(*map(at, ["enqueue_turn", "release_slot", "wait_for_user"]))


async def test_cancelling_an_ending_conversation_changes_nothing(harness: Harness) -> None:
    async def at(step: str) -> None:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await harness.task_job(script)
        await job.called("wait_for_user")
        await job.complete()
        await gate.started()
        await job.handle.cancel()
        await asyncio.sleep(0.2)
        gate.open()
        assert await job.result() == ANSWERED
        assert script.count("clean_up") == script.count("finish_job") == 1
        status = (await job.handle.describe()).status
        assert status is WorkflowExecutionStatus.COMPLETED

    await asyncio.gather(*map(at, ["finish_job", "clean_up"]))


async def test_a_message_that_is_being_accepted_does_not_delay_cancellation(
    harness: Harness,
) -> None:
    job = await waiting_job(harness)
    accepting = Gate(returns(True))
    job.script.plan("accept_message", accepting)
    sending = asyncio.create_task(job.send())
    await accepting.started()
    await job.cancel()
    await job.called("clean_up")
    accepting.open()
    await sending
    assert await job.result() == CANCELLED
    assert job.script.count("run_claude") == 1


async def test_cleanup_without_a_slot_looks_up_the_hosts_task_queue(
    harness: Harness,
) -> None:
    job = await waiting_job(harness)
    job.script.plan("find_host_queue", returns("host-b"))
    await job.cancel()
    assert await job.result() == CANCELLED
    assert job.script.requests["find_host_queue"] == [FindHostQueueInput("a")]
    assert job.script.count("clean_up") == 1


async def test_the_idle_limit_starts_again_after_each_turn(harness: Harness) -> None:
    job = await harness.task_job(idle=timedelta(seconds=1.2))
    await job.called("wait_for_user")
    await asyncio.sleep(0.7)
    await job.send()
    await job.called("wait_for_user", 2)
    await asyncio.sleep(0.7)
    await job.complete()
    assert await job.result() == ANSWERED
