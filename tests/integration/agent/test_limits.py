from __future__ import annotations

import asyncio

import pytest

from agent.claude.budget import process_budget
from agent.claude.session_files import SessionFiles, usage_so_far
from agent.message_queue import MessageQueue
from agent.turn import TurnReport, run_turn
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import JobType, Usage
from fakes.anthropic.steps import Step
from tests.integration.agent.conftest import Lines, ScriptedJob, until, user_message

CALL = 0.0008
"""Cost of one call of the scripted model according to the CLI, in US dollars."""

SEARCHING: Step = {"tools": [["Glob", {"pattern": "*"}]], "times": 9}


def costing(report: TurnReport) -> float:
    assert report.result.usage.cost_usd is not None
    return round(report.result.usage.cost_usd / CALL, 3)


def code_of(report: TurnReport) -> FailureCode | None:
    failure = report.result.failure
    return None if failure is None else failure.code


@pytest.mark.parametrize("resume", [False, True], ids=["new", "resumed"])
async def test_the_turn_limit(job: ScriptedJob, resume: bool) -> None:
    job.script({"text": "One."}, SEARCHING)
    await job.turn("Go.")
    if not resume:
        job.session_id = user_message("").id

    report = await job.turn("Go.", job.launch(resume=resume, max_turns=2))

    assert code_of(report) is FailureCode.MAX_TURNS
    assert report.result.usage.input_tokens == 200


async def test_a_budget_counts_from_the_start_of_the_process(job: ScriptedJob) -> None:
    job.script({"text": "One."}, SEARCHING)
    await job.turn("Go.")

    report = await job.turn("Go.", job.launch(resume=True, max_budget_usd=CALL * 2))

    assert code_of(report) is FailureCode.BUDGET_REACHED
    assert costing(report) == 2
    assert report.result.failure is not None
    assert report.result.failure.message == FailureCode.BUDGET_REACHED.sentence
    assert not report.result.failure.transient


async def test_a_process_makes_one_call_under_any_budget_and_then_fails(
    job: ScriptedJob,
) -> None:
    job.script({"text": "Done."})

    report = await job.turn("Go.", job.launch(max_budget_usd=CALL / 100))

    assert code_of(report) is FailureCode.BUDGET_REACHED
    assert costing(report) == 1


async def test_a_budget_spans_the_turns_of_a_process(job: ScriptedJob) -> None:
    job.script({"text": "One.", "chunk": 1, "chunk_delay": 0.05}, {"text": "Two."})
    queue = MessageQueue()
    async with job.process(job.launch(JobType.TASK, max_budget_usd=CALL * 1.5)) as process:
        running = asyncio.create_task(
            run_turn(process, [user_message("One?")], keep_open=True, on_line=Lines(), queue=queue)
        )
        await until(lambda: bool(job.requests))
        assert await queue.offer(user_message("Two?"))
        report = await running

    assert code_of(report) is FailureCode.BUDGET_REACHED
    assert costing(report) == 2


async def test_the_budget_of_a_job_spans_processes_and_lost_sessions(job: ScriptedJob) -> None:
    """A budget of three and a half calls: one call, a lost session, two calls, and the rest."""
    budget, recorded = CALL * 3.5, Usage()
    job.script({"text": "One."}, SEARCHING)
    recorded += (await job.turn("Go.")).result.usage
    job.session_id = user_message("").id
    left = process_budget(budget, recorded, Usage())
    assert left == pytest.approx(CALL * 2.5)
    second = await job.turn("Go.", job.launch(max_turns=2, max_budget_usd=left))
    assert code_of(second) is FailureCode.MAX_TURNS
    recorded += second.result.usage
    session = usage_so_far(SessionFiles(job.config_dir, job.cwd, job.session_id).read() or b"")

    left = process_budget(budget, recorded, session)
    last = await job.turn("Go.", job.launch(resume=True, max_budget_usd=left))

    assert code_of(last) is FailureCode.BUDGET_REACHED
    assert costing(last) == 1
    with pytest.raises(JobFailure) as caught:
        process_budget(budget, recorded + last.result.usage, session)
    assert caught.value.code is FailureCode.BUDGET_REACHED


@pytest.mark.parametrize(
    ("budget", "recorded", "session", "left"),
    [
        (None, 5.0, 5.0, None),
        (2.0, None, None, 2.0),
        (2.0, 0.5, None, 1.5),
        (2.0, 0.5, 0.75, 1.25),
        (2.0, 0.75, 0.5, 1.25),
    ],
)
def test_the_larger_recorded_usage_counts(
    budget: float | None, recorded: float | None, session: float | None, left: float | None
) -> None:
    assert process_budget(budget, Usage(cost_usd=recorded), Usage(cost_usd=session)) == left


def test_a_rounding_error_is_no_budget() -> None:
    spent = sum(Usage(cost_usd=cost).cost_usd or 0.0 for cost in (0.1, 0.7))
    assert spent < 0.8
    with pytest.raises(JobFailure):
        process_budget(0.8, Usage(cost_usd=spent), Usage())
