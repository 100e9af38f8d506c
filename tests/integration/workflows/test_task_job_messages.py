"""Messages to a conversation: each reaches Claude once and in order."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from activities.claude import RunClaudeInput, RunClaudeResult
from activities.job_records import EnqueueTurnInput
from domain.errors import DependencyUnavailable, JobFailure, NotFound
from domain.failures import FailureCode, TimeLimit
from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.harness import Harness, StartedJob
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from tests.integration.workflows.server import reached
from workflows import policies
from workflows.steps import JobResult
from workflows.task_job import NOT_ACCEPTING

ANSWERED = JobResult(JobStatus.COMPLETED, Outcome.ANSWERED)
FIRST_TURN = ["prepare", "run_claude", "verify_unchanged"]


def turns(script: Script) -> list[RunClaudeInput]:
    return script.requests["run_claude"]


def given(script: Script) -> list[list[str]]:
    """Return the input of each run of Claude."""
    return [turn.message_ids for turn in turns(script)]


async def waiting(job: StartedJob, turn: int = 1) -> None:
    """Wait until the job waits for its user."""
    await job.called("wait_for_user", turn)


async def completed(job: StartedJob) -> JobResult:
    await job.complete()
    return await job.result()


async def refusal(attempt: object) -> str | None:
    """Return the type of the error with which an update is rejected."""
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await attempt  # type: ignore[misc]
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    return cause.type


async def test_the_first_turn_answers_the_prompt_and_releases_the_slot(harness: Harness) -> None:
    job = await harness.task_job()
    await waiting(job)
    steps = ["hold_slot", *FIRST_TURN, "release_slot", "wait_for_user"]
    assert job.script.steps == steps
    [turn] = turns(job.script)
    assert (turn.turn, turn.attempt, turn.message_ids) == (1, 1, [])
    assert await completed(job) == ANSWERED
    rest = job.script.work[len(FIRST_TURN) + 1 :]
    assert sorted(rest) == ["clean_up", "finish_job", "record_completion"]


async def test_a_message_starts_the_next_turn(harness: Harness) -> None:
    job = await harness.task_job()
    await waiting(job)
    message = await job.send()
    await waiting(job, 2)
    assert given(job.script) == [[], [message]]
    assert [turn.turn for turn in turns(job.script)] == [1, 2]
    assert [turn.lease.number for turn in turns(job.script)] == [1, 2]
    assert job.script.requests["enqueue_turn"] == [EnqueueTurnInput(job.id)]
    assert await completed(job) == ANSWERED
    assert job.script.count("deliver_message") == 0
    assert job.script.count("hold_slot") == job.script.count("release_slot") == 2


async def test_a_message_during_a_turn_reaches_the_running_process(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    job = await harness.task_job(script)
    await gate.started()
    message = await job.send()
    assert script.inbox == [message]
    gate.open()
    await waiting(job)
    assert given(script) == [[]]
    assert await completed(job) == ANSWERED
    assert script.count("run_claude") == 1


async def test_a_message_that_was_delivered_but_not_answered_starts_a_turn(
    harness: Harness,
) -> None:
    script = Script()
    gate = Gate(returns(RunClaudeResult([])))
    script.plan("run_claude", gate)
    job = await harness.task_job(script)
    await gate.started()
    message = await job.send()
    assert script.inbox == [message]
    gate.open()
    await waiting(job)
    assert given(script) == [[], [message]]
    assert await completed(job) == ANSWERED


async def test_a_message_that_a_killed_process_left_starts_a_turn(harness: Harness) -> None:
    """Claude was killed after it had answered the first message."""
    script = Script()
    first = Gate(returns(None))
    script.plan("run_claude", first)
    job = await harness.task_job(script)
    await first.started()
    script.plan("deliver_message", returns(False), returns(False))
    messages = [await job.send(), await job.send()]
    script.plan("run_claude", returns(RunClaudeResult(messages[:1])))
    first.open()
    await waiting(job)
    assert given(script) == [[], messages, messages[1:]]
    assert script.seen == messages
    assert await completed(job) == ANSWERED


async def test_a_turn_that_reports_no_message_has_answered_its_initial_messages(
    harness: Harness,
) -> None:
    job = await harness.task_job()
    await waiting(job)
    job.script.plan("run_claude", returns(RunClaudeResult([])))
    message = await job.send()
    await waiting(job, 2)
    assert given(job.script) == [[], [message]]
    assert await completed(job) == ANSWERED


async def test_a_message_after_the_process_has_ended_starts_a_turn(harness: Harness) -> None:
    script = Script()
    verifying = Gate()
    script.plan("verify_unchanged", verifying)
    job = await harness.task_job(script)
    await verifying.started()
    message = await job.send()
    verifying.open()
    await waiting(job)
    assert script.count("deliver_message") == 1
    assert given(script) == [[], [message]]
    assert await completed(job) == ANSWERED


async def test_a_message_before_the_first_turn_is_part_of_it(harness: Harness) -> None:
    script = Script()
    preparing = Gate()
    script.plan("prepare", preparing)
    job = await harness.task_job(script)
    await preparing.started()
    message = await job.send()
    script.plan("prepare", returns(None))
    preparing.open()
    await waiting(job)
    assert given(script) == [[message]]
    assert await completed(job) == ANSWERED


async def test_later_messages_do_not_overtake_a_waiting_message(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    script.plan("deliver_message", returns(False))
    job = await harness.task_job(script)
    await gate.started()
    first, second = await job.send(), await job.send()
    gate.open()
    await waiting(job)
    given_now = script.requests["run_claude"][0].message_ids
    delivered = [delivery.message_id for delivery in script.requests["deliver_message"]]
    assert given_now == []
    assert delivered == [first, first, second]
    assert script.count("run_claude") == 1
    assert await completed(job) == ANSWERED


async def test_a_message_that_cannot_be_delivered_goes_to_the_next_turn(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    script.plan("deliver_message", raises(DependencyUnavailable("It is down.", "store")))
    job = await harness.task_job(script)
    await gate.started()
    message = await job.send()
    gate.open()
    await waiting(job)
    assert given(script) == [[], [message]]
    assert await completed(job) == ANSWERED


async def test_quick_messages_keep_their_order(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    job = await harness.task_job(script)
    await gate.started()
    sent = [await job.send() for _ in range(20)]
    assert script.inbox == sent
    gate.open()
    assert await completed(job) == ANSWERED
    assert given(script) == [[]]
    assert [delivery.message_id for delivery in script.requests["deliver_message"]] == sent


async def test_concurrent_messages_arrive_once_in_the_order_of_acceptance(
    harness: Harness,
) -> None:
    job = await harness.task_job()
    await waiting(job)
    sent = await asyncio.gather(*(job.send() for _ in range(20)))
    assert await completed(job) == ANSWERED
    accepted = [message.message_id for message in job.script.requests["accept_message"]]
    assert sorted(accepted) == sorted(sent)
    assert [m for m in job.script.seen if m in sent] == accepted


async def test_a_repeated_message_is_accepted_once(harness: Harness) -> None:
    job = await harness.task_job()
    await waiting(job)
    message = await job.send()
    await job.send(message)
    await job.send(message, id=f"again-{message}")
    await waiting(job, 2)
    assert given(job.script) == [[], [message]]
    assert job.script.count("accept_message") == 1
    assert await completed(job) == ANSWERED


async def test_a_message_is_kept_while_the_store_is_down(harness: Harness) -> None:
    script = Script()
    down = raises(DependencyUnavailable("It is down.", "store"))
    script.plan("accept_message", *[down] * 4)
    job = await harness.task_job(script)
    await waiting(job)
    message = await job.send()
    await waiting(job, 2)
    assert given(script) == [[], [message]]
    assert await completed(job) == ANSWERED


async def test_a_message_that_cannot_be_accepted_is_rejected_and_the_job_continues(
    harness: Harness,
) -> None:
    script = Script()
    script.plan("accept_message", raises(NotFound("There is no such job.")))
    job = await harness.task_job(script)
    await waiting(job)
    with pytest.raises(WorkflowUpdateFailedError):
        await job.send()
    message = await job.send()
    await waiting(job, 2)
    assert given(script) == [[], [message]]
    assert await completed(job) == ANSWERED


async def test_messages_after_completion_are_rejected(harness: Harness) -> None:
    script = Script()
    gate = Gate()
    script.plan("run_claude", gate)
    job = await harness.task_job(script)
    await gate.started()
    await job.complete()
    assert await refusal(job.send()) == NOT_ACCEPTING
    gate.open()
    assert await job.result() == ANSWERED
    assert script.count("accept_message") == 0


async def test_a_message_just_before_completion_is_answered(harness: Harness) -> None:
    script = Script()
    gate = Gate(returns(RunClaudeResult([])))
    script.plan("run_claude", gate)
    job = await harness.task_job(script)
    await gate.started()
    message, _ = await asyncio.gather(job.send(), _slightly_later(job))
    gate.open()
    assert await job.result() == ANSWERED
    assert given(script) == [[], [message]]


async def _slightly_later(job: StartedJob) -> None:
    await job.called("accept_message")
    await job.complete()


async def test_a_message_that_is_being_accepted_when_the_turn_ends_is_answered(
    harness: Harness,
) -> None:
    script = Script()
    turn, accepting = Gate(), Gate(returns(True))
    script.plan("run_claude", turn)
    script.plan("accept_message", accepting)
    job = await harness.task_job(script)
    await turn.started()
    sending = asyncio.create_task(job.send())
    await accepting.started()
    completing = asyncio.create_task(job.complete())
    turn.open()
    await job.called("release_slot")
    accepting.open()
    message = await sending
    await completing
    assert await job.result() == ANSWERED
    assert given(script) == [[], [message]]


async def test_a_message_accepted_before_completion_is_answered(harness: Harness) -> None:
    script = Script()
    accepting = [Gate(returns(True)), Gate(returns(True))]
    script.plan("accept_message", *accepting)
    job = await harness.task_job(script)
    await waiting(job)
    sending = [asyncio.create_task(job.send())]
    await accepting[0].started()
    completing = asyncio.create_task(job.complete())
    await updates_accepted(job, 2)
    sending.append(asyncio.create_task(job.send()))
    await updates_accepted(job, 3)
    accepting[0].open()
    await job.called("release_slot", 2)
    await asyncio.sleep(0.2)
    accepting[1].open()
    sent = await asyncio.gather(*sending)
    await completing
    assert await job.result() == ANSWERED
    assert given(script) == [[], [sent[0]], [sent[1]]]


async def updates_accepted(job: StartedJob, count: int) -> None:
    """Wait until the workflow has accepted this number of updates."""
    accepted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    await reached(job.handle, accepted, times=count)


async def test_a_host_lost_in_a_turn_leaves_no_message_unanswered(harness: Harness) -> None:
    script = Script("a", "a", "b")
    first, second = Gate(), Gate()
    script.plan("run_claude", first, second)
    job = await harness.task_job(script)
    await first.started()
    during = await job.send()
    first.open()
    await waiting(job)
    asked = await job.send()
    await second.started()
    late = await job.send()
    script.stop_host()
    await waiting(job, 2)
    assert given(script) == [[], [asked], [asked, late]]
    assert [(turn.turn, turn.attempt) for turn in turns(script)] == [(1, 1), (2, 1), (2, 2)]
    assert during not in {*given(script)[1], *given(script)[2]}
    assert await completed(job) == ANSWERED


async def test_a_long_conversation_continues_as_a_new_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "MESSAGES_PER_RUN", 2)
    job = await harness.task_job()
    await waiting(job)
    first_run = (await job.handle.describe()).run_id
    sent = []
    for turn in range(2, 7):
        sent.append(await job.send())
        await waiting(job, turn)
    assert (await job.handle.describe()).run_id != first_run
    assert [message for messages in given(job.script) for message in messages] == sent
    assert [turn.turn for turn in turns(job.script)] == [1, 2, 3, 4, 5, 6]
    assert [turn.lease.number for turn in turns(job.script)] == [1, 2, 3, 4, 5, 6]
    assert await completed(job) == ANSWERED
    assert job.script.count("clean_up") == 1


async def test_a_new_run_keeps_waiting_messages(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "MESSAGES_PER_RUN", 3)
    script = Script()
    gate = Gate(returns(RunClaudeResult([])))
    script.plan("run_claude", gate)
    job = await harness.task_job(script)
    await gate.started()
    sent = [await job.send() for _ in range(5)]
    gate.open()
    await waiting(job)
    assert given(script) == [[], sent]
    assert [turn.turn for turn in turns(script)] == [1, 2]
    assert await completed(job) == ANSWERED


async def test_the_idle_limit_ends_a_conversation(harness: Harness) -> None:
    job = await harness.task_job(idle=timedelta(seconds=0.5))
    result = await job.result()
    assert (result.status, result.failure_code) == (JobStatus.FAILED, FailureCode.TIMED_OUT)
    assert result.error == TimeLimit.IDLE.sentence
    assert job.script.work[-2:] == ["finish_job", "clean_up"]


async def test_changed_files_fail_the_conversation(harness: Harness) -> None:
    script = Script()
    failure = JobFailure(FailureCode.TASK_CHANGED_FILES, "Changed: app.py.")
    script.plan("verify_unchanged", raises(failure))
    job = await harness.task_job(script)
    assert await job.result() == JobResult(
        JobStatus.FAILED, None, FailureCode.TASK_CHANGED_FILES, "Changed: app.py."
    )
    assert script.work == [*FIRST_TURN, "finish_job", "clean_up"]


async def test_a_failed_turn_fails_the_conversation(harness: Harness) -> None:
    script = Script()
    script.plan("run_claude", raises(JobFailure(FailureCode.PROMPT_TOO_LONG)))
    job = await harness.task_job(script)
    assert (await job.result()).failure_code is FailureCode.PROMPT_TOO_LONG
    assert script.count("release_slot") == 1
