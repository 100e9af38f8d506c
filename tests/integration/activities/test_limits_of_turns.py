"""What bounds a turn of the real CLI: money, time and usage limits; and what is kept of it then."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from activities.claude import RunClaudeInput
from domain.errors import JobFailure, LeaseLost
from domain.failures import FailureCode, TimeLimit
from domain.jobs import JobOptions
from domain.timestamps import utc_now
from domain.usage_limits import UNKNOWN_RESET
from fakes.anthropic.steps import Step
from tests.integration.activities.conversations import Conversations, processes_of, turn, turn_input
from tests.integration.activities.machine import Granted, Machine
from tests.integration.workflows.server import eventually

LOOK: Step = {"tools": [["Bash", {"command": "true"}]]}
SLEEP: Step = {
    "tools": [["Bash", {"command": "touch begun; python3 -c 'import time; time.sleep(90)'"}]]
}
LIMIT = "anthropic-ratelimit-unified-"


def used_up(resets_in: float | None, limit_type: str = "five_hour") -> Step:
    """What the API answers when a subscription's quota is used up (see facts of the CLI)."""
    headers = {f"{LIMIT}status": "rejected", f"{LIMIT}representative-claim": limit_type}
    if resets_in is not None:
        headers[f"{LIMIT}reset"] = str(int(utc_now().timestamp() + resets_in))
    return {
        "status": 429,
        "error": "rate_limit_error",
        "message": "usage limit",
        "headers": headers,
    }


async def failing(machine: Machine, granted: Granted, request: RunClaudeInput) -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await machine.run(machine.claude.run_claude, request)
    assert processes_of(granted.job) == []
    return caught.value


async def test_a_job_names_its_model(conversations: Conversations) -> None:
    conversations.script({"text": "Done."})
    machine = conversations.machine()
    options = JobOptions(model="claude-sonnet-5-5", max_turns=3)
    granted, _ = await machine.prepared(options=options)
    await turn(machine, granted)
    assert conversations.models_asked == ["claude-sonnet-5-5"]
    assert (await machine.world.read(granted.job)).model == "claude-sonnet-5-5"


async def test_a_job_bounds_its_turns(conversations: Conversations) -> None:
    conversations.script(LOOK, repeat_last=True)
    machine = conversations.machine()
    granted, _ = await machine.prepared(options=JobOptions(max_turns=2))
    failure = await failing(machine, granted, turn_input(granted))
    assert failure.code is FailureCode.MAX_TURNS
    assert len(conversations.asked) == 2


async def test_a_budget_spans_all_attempts(conversations: Conversations) -> None:
    conversations.script(LOOK, LOOK, {"text": "Half."}, LOOK, repeat_last=True)
    machine = conversations.machine()
    granted, _ = await machine.prepared(options=JobOptions(max_budget_usd=0.005))
    await turn(machine, granted)
    first = (await machine.world.read(granted.job)).usage.cost_usd or 0
    assert 0 < first < 0.005
    failure = await failing(machine, granted, turn_input(granted, attempt=2))
    assert failure.code is FailureCode.BUDGET_REACHED
    spent = (await machine.world.read(granted.job)).usage.cost_usd or 0
    asked = len(conversations.asked)
    assert 0.005 <= spent < 0.007
    again = await failing(machine, granted, turn_input(granted, attempt=3))
    assert again.code is FailureCode.BUDGET_REACHED
    assert len(conversations.asked) == asked
    assert not (await machine.world.read(granted.job)).cost_is_estimate


async def test_a_usage_limit_holds_the_credential(conversations: Conversations) -> None:
    conversations.script(LOOK, used_up(resets_in=3600))
    machine = conversations.machine(is_subscription=True)
    granted, _ = await machine.prepared()
    failure = await failing(machine, granted, turn_input(granted))
    assert failure.code is FailureCode.USAGE_LIMIT
    assert failure.resets_at is not None
    in_an_hour = utc_now() + timedelta(hours=1)
    assert abs(failure.resets_at - in_an_hour) < timedelta(minutes=1)
    assert await machine.credential.is_held()
    job = await machine.world.read(granted.job)
    assert job.cost_is_estimate
    assert job.usage.cost_usd


async def test_a_usage_limit_that_tells_no_end_holds_the_credential_too(
    conversations: Conversations,
) -> None:
    """For as long as the job waits that met it."""
    conversations.script(used_up(resets_in=None))
    machine = conversations.machine(is_subscription=True)
    granted, _ = await machine.prepared()
    failure = await failing(machine, granted, turn_input(granted))
    assert (failure.code, failure.resets_at) == (FailureCode.USAGE_LIMIT, None)
    assert await machine.credential.is_held()
    held_until = await machine.world.store.credential_held_until("c0ffee")
    assert held_until is not None
    assert abs(held_until - utc_now() - UNKNOWN_RESET) < timedelta(minutes=1)


async def test_the_limit_of_one_model_holds_no_other(conversations: Conversations) -> None:
    conversations.script(used_up(3600, "seven_day_opus"))
    machine = conversations.machine(is_subscription=True)
    granted, _ = await machine.prepared()
    failure = await failing(machine, granted, turn_input(granted))
    assert failure.code is FailureCode.USAGE_LIMIT
    assert failure.resets_at is not None
    assert not await machine.credential.is_held()


async def test_too_many_requests_hold_nothing(conversations: Conversations) -> None:
    conversations.script(
        {"status": 429, "error": "rate_limit_error", "message": "slow down"}, repeat_last=True
    )
    machine = conversations.machine()
    granted, _ = await machine.prepared()
    failure = await failing(machine, granted, turn_input(granted))
    assert (failure.code, failure.transient) == (FailureCode.CLAUDE_OVERLOADED, True)
    assert not await machine.credential.is_held()


async def test_time_is_limited_although_claude_is_at_work(conversations: Conversations) -> None:
    conversations.script(SLEEP)
    machine = conversations.machine()
    granted, worktree = await machine.prepared()
    limited = RunClaudeInput(granted.key, 1, 1, [], limit_seconds=15, time_limit=TimeLimit.JOB)
    failure = await failing(machine, granted, limited)
    assert (failure.code, failure.clock) == (FailureCode.TIMED_OUT, TimeLimit.JOB)
    assert (worktree.path / "begun").exists()
    job = await machine.world.read(granted.job)
    assert job.usage.input_tokens == 100
    assert job.claude_seconds > 14


async def test_a_turn_that_is_stopped_has_used_what_it_has(conversations: Conversations) -> None:
    conversations.script(SLEEP)
    machine = conversations.machine()
    granted, worktree = await machine.prepared()
    running = asyncio.create_task(turn(machine, granted))
    await eventually((worktree.path / "begun").exists)
    await machine.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await running
    job = await machine.world.read(granted.job)
    assert job.usage.input_tokens == 100
    assert job.usage.cost_usd
    assert job.claude_seconds > 0
