"""Budget, time and usage limits of a turn with the real CLI, and the recorded usage."""

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
from tests.integration.activities.worker_host import Granted, WorkerHost
from tests.integration.workflows.server import eventually

LOOK: Step = {"tools": [["Bash", {"command": "true"}]]}
SLEEP: Step = {
    "tools": [["Bash", {"command": "touch begun; python3 -c 'import time; time.sleep(90)'"}]]
}
LIMIT = "anthropic-ratelimit-unified-"


def used_up(resets_in: float | None, limit_type: str = "five_hour") -> Step:
    """Return the response of the API when the quota of a subscription is used up."""
    headers = {f"{LIMIT}status": "rejected", f"{LIMIT}representative-claim": limit_type}
    if resets_in is not None:
        headers[f"{LIMIT}reset"] = str(int(utc_now().timestamp() + resets_in))
    return {
        "status": 429,
        "error": "rate_limit_error",
        "message": "usage limit",
        "headers": headers,
    }


async def failing(host: WorkerHost, granted: Granted, request: RunClaudeInput) -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await host.run(host.claude.run_claude, request)
    assert processes_of(granted.job) == []
    return caught.value


async def test_a_job_can_set_its_model(conversations: Conversations) -> None:
    conversations.script({"text": "Done."})
    host = conversations.host()
    options = JobOptions(model="claude-sonnet-5-5", max_turns=3)
    granted, _ = await host.prepared(options=options)
    await turn(host, granted)
    assert conversations.models_asked == ["claude-sonnet-5-5"]
    assert (await host.world.read(granted.job)).model == "claude-sonnet-5-5"


async def test_a_job_can_limit_its_turns(conversations: Conversations) -> None:
    conversations.script(LOOK, repeat_last=True)
    host = conversations.host()
    granted, _ = await host.prepared(options=JobOptions(max_turns=2))
    failure = await failing(host, granted, turn_input(granted))
    assert failure.code is FailureCode.MAX_TURNS
    assert len(conversations.asked) == 2


async def test_a_budget_spans_all_attempts(conversations: Conversations) -> None:
    conversations.script(LOOK, LOOK, {"text": "Half."}, LOOK, repeat_last=True)
    host = conversations.host()
    granted, _ = await host.prepared(options=JobOptions(max_budget_usd=0.005))
    await turn(host, granted)
    first = (await host.world.read(granted.job)).usage.cost_usd or 0
    assert 0 < first < 0.005
    failure = await failing(host, granted, turn_input(granted, attempt=2))
    assert failure.code is FailureCode.BUDGET_REACHED
    spent = (await host.world.read(granted.job)).usage.cost_usd or 0
    asked = len(conversations.asked)
    assert 0.005 <= spent < 0.007
    again = await failing(host, granted, turn_input(granted, attempt=3))
    assert again.code is FailureCode.BUDGET_REACHED
    assert len(conversations.asked) == asked
    assert not (await host.world.read(granted.job)).cost_is_estimate


async def test_a_usage_limit_holds_the_credential(conversations: Conversations) -> None:
    conversations.script(LOOK, used_up(resets_in=3600))
    host = conversations.host(is_subscription=True)
    granted, _ = await host.prepared()
    failure = await failing(host, granted, turn_input(granted))
    assert failure.code is FailureCode.USAGE_LIMIT
    assert failure.resets_at is not None
    in_an_hour = utc_now() + timedelta(hours=1)
    assert abs(failure.resets_at - in_an_hour) < timedelta(minutes=1)
    assert await host.credential.is_held()
    job = await host.world.read(granted.job)
    assert job.cost_is_estimate
    assert job.usage.cost_usd


async def test_a_usage_limit_without_an_end_holds_the_credential(
    conversations: Conversations,
) -> None:
    """For as long as the job itself waits."""
    conversations.script(used_up(resets_in=None))
    host = conversations.host(is_subscription=True)
    granted, _ = await host.prepared()
    failure = await failing(host, granted, turn_input(granted))
    assert (failure.code, failure.resets_at) == (FailureCode.USAGE_LIMIT, None)
    assert await host.credential.is_held()
    held_until = await host.world.store.credential_held_until("c0ffee")
    assert held_until is not None
    assert abs(held_until - utc_now() - UNKNOWN_RESET) < timedelta(minutes=1)


async def test_the_limit_of_one_model_does_not_hold_the_credential(
    conversations: Conversations,
) -> None:
    conversations.script(used_up(3600, "seven_day_opus"))
    host = conversations.host(is_subscription=True)
    granted, _ = await host.prepared()
    failure = await failing(host, granted, turn_input(granted))
    assert failure.code is FailureCode.USAGE_LIMIT
    assert failure.resets_at is not None
    assert not await host.credential.is_held()


async def test_a_rate_limit_does_not_hold_the_credential(conversations: Conversations) -> None:
    conversations.script(
        {"status": 429, "error": "rate_limit_error", "message": "slow down"}, repeat_last=True
    )
    host = conversations.host()
    granted, _ = await host.prepared()
    failure = await failing(host, granted, turn_input(granted))
    assert (failure.code, failure.transient) == (FailureCode.CLAUDE_OVERLOADED, True)
    assert not await host.credential.is_held()


async def test_the_time_limit_stops_an_active_turn(conversations: Conversations) -> None:
    conversations.script(SLEEP)
    host = conversations.host()
    granted, worktree = await host.prepared()
    limited = RunClaudeInput(granted.key, 1, 1, [], limit_seconds=10, time_limit=TimeLimit.JOB)
    failure = await failing(host, granted, limited)
    assert (failure.code, failure.clock) == (FailureCode.TIMED_OUT, TimeLimit.JOB)
    assert (worktree.path / "begun").exists()
    job = await host.world.read(granted.job)
    assert job.usage.input_tokens == 100
    assert job.claude_seconds > 9


async def test_a_stopped_turn_records_its_usage(conversations: Conversations) -> None:
    conversations.script(SLEEP)
    host = conversations.host()
    granted, worktree = await host.prepared()
    running = asyncio.create_task(turn(host, granted))
    await eventually((worktree.path / "begun").exists)
    await host.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await running
    job = await host.world.read(granted.job)
    assert job.usage.input_tokens == 100
    assert job.usage.cost_usd
    assert job.claude_seconds > 0
