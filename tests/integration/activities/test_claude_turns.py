"""Running turns with the real CLI: what Claude is given, and what is kept of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activities.claude import DeliverMessageInput, DeliverMessageResult, RunClaudeResult
from domain.errors import JobFailure, LeaseLost
from domain.failures import FailureCode
from domain.jobs import LIVE, Phase, Usage
from domain.messages import MessageType
from fakes.anthropic.steps import Step
from host.slots.leases import LeaseKey
from store.protocol import Guard
from tests.integration.activities.conversations import (
    Conversations,
    processes_of,
    prompt_id,
    transcript_file,
    turn,
    turn_input,
)
from tests.integration.activities.machine import MODEL, Machine
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import UNKNOWN_ID

SECRETS = ("GITHUB_TOKEN", "GH_TOKEN", "SUPABASE_SERVICE_ROLE_KEY", "AGENT_API_SECRET")


async def test_a_turn_leaves_work_answer_usage_and_session(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, f"the value of {name}")
    conversations.script(
        {"tools": [["Bash", {"command": "env > environment.log; pwd"}]]}, {"text": "Added it."}
    )
    machine = conversations.machine()
    granted, worktree = await machine.prepared(title="Login", prompt="Add a login page")
    # The CLI attaches files that a message mentions, unless it is told not to.
    (tmp_path / "mentioned.txt").write_text("the content of a file")
    (worktree.path / "CLAUDE.md").write_text(f"Use tabs.\n@{tmp_path / 'mentioned.txt'}\n")

    assert await turn(machine, granted) == RunClaudeResult([prompt_id(granted.job)])

    assert "# Login\\\\n\\\\nAdd a login page" in json.dumps(conversations.asked[0])
    assert "on the branch" in conversations.asked[0]
    assert "Use tabs." in conversations.asked[0]
    assert "the content of a file" not in conversations.asked[0]
    environment = (worktree.path / "environment.log").read_text()
    assert not any(name in environment for name in (*SECRETS, "the value of"))
    assert f"HOME={machine.sessions / granted.job.id}\n" in environment
    row = await machine.world.read(granted.job)
    assert (row.phase, row.session_id, row.attempt) == (Phase.WORKING, granted.job.id, 1)
    assert (row.pid, row.exit_code, row.model, row.result) == (None, 0, MODEL, "Added it.")
    assert (row.usage.turns, row.usage.input_tokens, row.usage.output_tokens) == (2, 200, 40)
    assert row.claude_seconds > 0
    assert processes_of(granted.job) == []
    saved = await machine.world.store.load_session(granted.job.id)
    assert saved == (granted.job.id, transcript_file(machine, granted.job).read_bytes())
    lines = (await conversations.lines(row))[1:]
    assert not any("Use tabs." in line.content for line in lines)
    assert {line.type for line in lines} == {MessageType.STDOUT}
    kinds = [json.loads(line.content)["type"] for line in lines]
    assert "command_lifecycle" not in kinds
    assert kinds[0] == "system"
    assert kinds[-1] == "result"
    assert "assistant" in kinds


async def test_a_turn_that_fails_keeps_what_it_used(conversations: Conversations) -> None:
    message = "prompt is too long: 300000 tokens > 200000 maximum"
    conversations.script(
        {"tools": [["Bash", {"command": "true"}]]},
        {"status": 400, "error": "invalid_request_error", "message": message},
        repeat_last=True,
    )
    machine = conversations.machine()
    granted, _ = await machine.prepared()
    with pytest.raises(JobFailure) as caught:
        await turn(machine, granted)
    assert caught.value.code is FailureCode.PROMPT_TOO_LONG
    row = await machine.world.read(granted.job)
    assert (row.pid, row.result) == (None, None)
    assert row.exit_code == 1
    assert row.usage.input_tokens == 100
    assert await machine.world.store.load_session(granted.job.id) is not None


async def test_a_credential_counts_as_refused_until_a_turn_succeeds(
    conversations: Conversations,
) -> None:
    machine = conversations.machine(is_subscription=True)
    granted, _ = await machine.prepared()
    fine: Step = {"text": "Fine."}
    refused: Step = {"status": 401, "error": "authentication_error", "message": "invalid token"}
    too_long: Step = {
        "status": 400,
        "error": "invalid_request_error",
        "message": "prompt is too long: 300000 tokens > 200000 maximum",
    }
    told: list[bool] = []
    for attempt, step in enumerate((fine, refused, too_long, fine), 1):
        conversations.script(step, repeat_last=True)
        with contextlib.suppress(JobFailure):
            await turn(machine, granted, 1, attempt)
        told.append(machine.credential.is_refused)
    assert told == [False, True, True, False]


async def test_messages_reach_a_running_turn_once(conversations: Conversations) -> None:
    conversations.script({"delay": 1.0, "text": "First."}, {"text": "Second."}, repeat_last=True)
    machine = conversations.machine()
    granted = await machine.grant_task()
    await machine.prepare(granted)
    message_id = await conversations.user_says(granted.job, "One more thing.")
    deliver = machine.claude.deliver_message
    early, unknown = (
        DeliverMessageInput(granted.key, message_id),
        DeliverMessageInput(granted.key, UNKNOWN_ID),
    )
    assert await machine.run(deliver, early) == DeliverMessageResult(delivered=False)

    running = asyncio.create_task(turn(machine, granted))
    await eventually(lambda: len(conversations.asked) == 1)
    delivered = await asyncio.gather(*(machine.run(deliver, early) for _ in range(2)))
    assert delivered == [DeliverMessageResult(delivered=True)] * 2
    for refused in (unknown, replace(early, lease=LeaseKey(granted.job.id, 2))):
        assert await machine.run(deliver, refused) == DeliverMessageResult(delivered=False)
    assert await running == RunClaudeResult([prompt_id(granted.job), message_id])

    assert conversations.asked[-1].count("One more thing.") == 1
    assert await machine.run(deliver, early) == DeliverMessageResult(delivered=False)
    assert (await machine.world.read(granted.job)).result == "Second."


async def test_a_turn_needs_the_lease(conversations: Conversations) -> None:
    machine = conversations.machine()
    granted = await machine.grant()
    with pytest.raises(LeaseLost):
        await machine.run(
            machine.claude.run_claude,
            replace(turn_input(granted), lease=LeaseKey(granted.job.id, 2)),
        )
    assert not machine.sessions.exists()


async def test_a_turn_under_a_lease_that_was_lost_is_stopped(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable = tmp_path / "claude"
    executable.write_text("#!/bin/sh\ntouch $HOME/started\nsleep 60\n")
    executable.chmod(0o755)
    machine.claude._setup = replace(machine.claude._setup, claude_bin=str(executable))
    enter = machine.claude._progress.enter

    async def enter_when_it_runs(*arguments: Any, **changes: Any) -> None:
        await eventually(lambda: any(machine.sessions.glob("*/started")))
        await enter(*arguments, **changes)

    monkeypatch.setattr(machine.claude._progress, "enter", enter_when_it_runs)
    granted, _ = await machine.prepared()
    await machine.world.store.update_job(granted.job.id, {"lease": 2}, Guard(LIVE))
    with pytest.raises(LeaseLost):
        await turn(machine, granted)
    assert processes_of(granted.job) == []
    row = await machine.world.read(granted.job)
    assert (row.phase, row.pid) == (Phase.PREPARING, None)


async def test_without_the_cli_the_job_fails(machine: Machine) -> None:
    granted, _ = await machine.prepared()
    machine.claude._setup = replace(machine.claude._setup, claude_bin="/nowhere/claude")
    with pytest.raises(JobFailure) as caught:
        await turn(machine, granted)
    assert caught.value.code is FailureCode.CLAUDE_NOT_FOUND
    assert machine.leases.require(granted.key).inbox is None


async def test_what_a_turn_used_is_added_once(machine: Machine) -> None:
    granted = await machine.grant()
    used = Usage(turns=3, cost_usd=0.25, input_tokens=100)

    async def record(number: int, attempt: int) -> Any:
        await machine.claude._add_usage(turn_input(granted, number, attempt), used, 1.5)
        return await machine.world.read(granted.job)

    for _ in range(2):
        row = await record(1, 1)
    assert (row.usage, row.claude_seconds) == (used, 1.5)
    for number, attempt in ((1, 2), (2, 1)):
        row = await record(number, attempt)
    assert (row.usage.turns, row.usage.cost_usd, row.claude_seconds) == (9, 0.75, 4.5)
