"""Completing and cancelling a conversation at every moment of its life."""

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
from tests.integration.workflows.lab import Lab, StartedJob
from tests.integration.workflows.scripts import Gate, Script, fail, give
from workflows import policies
from workflows.steps import JobResult
from workflows.task_job import NOT_ACCEPTING

ANSWERED = JobResult(JobStatus.COMPLETED, Outcome.ANSWERED)
CANCELLED = JobResult(JobStatus.CANCELLED)


async def job_at(lab: Lab, step: str, script: Script | None = None) -> tuple[StartedJob, Gate]:
    """A conversation that has come to a step of its first turn."""
    script = script or Script()
    gate = Gate(give(True))
    script.plan(step, gate)
    job = await lab.task_job(script)
    await gate.begun()
    return job, gate


async def waiting_job(lab: Lab) -> StartedJob:
    job = await lab.task_job()
    await job.called("wait_for_user")
    await job.reached(EventType.EVENT_TYPE_TIMER_STARTED)
    return job


async def test_completing_ends_a_conversation_that_waits(lab: Lab) -> None:
    job = await waiting_job(lab)
    await job.complete()
    assert await job.result() == ANSWERED
    assert job.script.count("run_claude") == job.script.count("hold_slot") == 1
    assert job.script.count("record_completion") == job.script.count("clean_up") == 1


async def test_completing_lets_the_running_turn_end(lab: Lab) -> None:
    job, gate = await job_at(lab, "verify_unchanged")
    await job.complete()
    assert job.script.count("finish_job") == 0
    gate.open()
    assert await job.result() == ANSWERED
    assert job.script.count("run_claude") == 1
    assert job.script.count("wait_for_user") == 0


async def test_completing_before_the_first_turn_still_answers_the_prompt(lab: Lab) -> None:
    script = Script()
    busy = Gate(fail(DependencyUnavailable("It is down.", "store")))
    script.plan("hold_slot", busy)
    job = await lab.task_job(script)
    await busy.begun()
    await job.complete()
    assert script.count("run_claude") == 0
    busy.open()
    assert await job.result() == ANSWERED
    assert script.count("run_claude") == 1


async def test_completing_twice_is_completing(lab: Lab) -> None:
    job, gate = await job_at(lab, "verify_unchanged")
    await job.complete()
    await job.complete()
    gate.open()
    assert await job.result() == ANSWERED
    assert job.script.count("finish_job") == 1


async def test_nothing_is_accepted_while_the_conversation_is_closed(lab: Lab) -> None:
    job = await waiting_job(lab)
    gate = Gate()
    job.script.plan("finish_job", gate)
    await job.complete()
    await gate.begun()
    for attempt in (job.send, job.complete):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await attempt()
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == NOT_ACCEPTING
    gate.open()
    await job.result()


async def test_afterwards_there_is_nothing_to_send_to(lab: Lab) -> None:
    job = await waiting_job(lab)
    await job.complete()
    await job.result()
    for attempt in (job.send, job.complete):
        with pytest.raises(RPCError) as caught:
            await attempt()
        assert caught.value.status is RPCStatusCode.NOT_FOUND


async def test_completing_is_not_lost_at_the_change_to_a_new_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "MESSAGES_PER_RUN", 1)
    script = Script()
    noting, delivering = Gate(), Gate(give(False))
    script.plan("record_completion", noting)
    job = await lab.task_job(script)
    await job.called("wait_for_user")
    turn = Gate()
    script.plan("run_claude", turn)
    script.plan("deliver_message", delivering)
    await job.send()
    await turn.begun()
    sending = asyncio.create_task(job.send())
    await delivering.begun()
    turn.open()
    await job.called("release_slot", 2)
    completing = asyncio.create_task(job.complete())
    await asyncio.sleep(0.2)
    delivering.open()
    await sending
    noting.open()
    await completing
    assert await job.result() == ANSWERED


async def test_cancelling_while_it_waits_removes_the_worktree(lab: Lab) -> None:
    job = await waiting_job(lab)
    await job.cancel()
    assert await job.result() == CANCELLED
    assert job.script.work[-2:] == ["finish_job", "clean_up"]
    assert job.script.endings[0].needs_cleanup


async def test_cancelling_stops_what_runs(lab: Lab) -> None:
    async def at(step: str) -> None:
        job, _ = await job_at(lab, step)
        await job.cancel()
        assert await job.result() == CANCELLED
        calls = job.script.calls
        assert calls.index("stop_work") < calls.index("clean_up") < calls.index("release_slot")
        assert calls.count("clean_up") == calls.count("release_slot") == 1

    await asyncio.gather(*map(at, ["prepare", "run_claude", "verify_unchanged"]))


async def test_a_queued_conversation_is_cancelled_at_once(lab: Lab) -> None:
    job, _ = await job_at(lab, "hold_slot")
    await job.cancel()
    assert await job.result() == CANCELLED
    assert job.script.calls == ["hold_slot", "finish_job"]


async def test_cancelling_between_two_steps_is_no_failure(lab: Lab) -> None:
    """The step is interrupted, and fails for that; the job is cancelled all the same."""

    async def at(step: str) -> None:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await lab.task_job(script)
        if step == "enqueue_turn":
            await job.called("wait_for_user")
            await job.send()
        await gate.begun()
        await job.handle.cancel()
        assert await job.result() == CANCELLED
        assert script.row is JobStatus.CANCELLED
        assert script.count("clean_up") == 1

    await asyncio.gather(*map(at, ["enqueue_turn", "release_slot", "wait_for_user"]))


async def test_cancelling_at_the_end_changes_nothing(lab: Lab) -> None:
    async def at(step: str) -> None:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await lab.task_job(script)
        await job.called("wait_for_user")
        await job.complete()
        await gate.begun()
        await job.handle.cancel()
        await asyncio.sleep(0.2)
        gate.open()
        assert await job.result() == ANSWERED
        assert script.count("clean_up") == script.count("finish_job") == 1
        status = (await job.handle.describe()).status
        assert status is WorkflowExecutionStatus.COMPLETED

    await asyncio.gather(*map(at, ["finish_job", "clean_up"]))


async def test_a_message_that_is_being_accepted_does_not_keep_a_cancelled_job(lab: Lab) -> None:
    job = await waiting_job(lab)
    accepting = Gate(give(True))
    job.script.plan("accept_message", accepting)
    sending = asyncio.create_task(job.send())
    await accepting.begun()
    await job.cancel()
    await job.called("clean_up")
    accepting.open()
    await sending
    assert await job.result() == CANCELLED
    assert job.script.count("run_claude") == 1


async def test_a_cancelled_conversation_without_a_slot_asks_who_runs_on_its_machine(
    lab: Lab,
) -> None:
    job = await waiting_job(lab)
    job.script.plan("find_host_queue", give("host-b"))
    await job.cancel()
    assert await job.result() == CANCELLED
    assert job.script.requests["find_host_queue"] == [FindHostQueueInput("a")]
    assert job.script.count("clean_up") == 1


async def test_an_idle_conversation_starts_its_clock_anew_after_each_turn(lab: Lab) -> None:
    job = await lab.task_job(idle=timedelta(seconds=1.2))
    await job.called("wait_for_user")
    await asyncio.sleep(0.7)
    await job.send()
    await job.called("wait_for_user", 2)
    await asyncio.sleep(0.7)
    await job.complete()
    assert await job.result() == ANSWERED
