"""Turns with the real CLI: the input of Claude, and the stored results."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activities.claude import (
    ClaudeSetup,
    DeliverMessageInput,
    DeliverMessageResult,
    RunClaudeResult,
)
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
from tests.integration.activities.worker_host import MODEL, WorkerHost
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import UNKNOWN_ID

SECRETS = ("GITHUB_TOKEN", "GH_TOKEN", "SUPABASE_SERVICE_ROLE_KEY", "AGENT_API_SECRET")


async def test_a_turn_stores_its_answer_usage_and_session(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, f"the value of {name}")
    conversations.script(
        {"tools": [["Bash", {"command": "env > environment.log; pwd"}]]}, {"text": "Added it."}
    )
    host = conversations.host()
    granted, worktree = await host.prepared(title="Login", prompt="Add a login page")
    # By default, the CLI attaches files that a message mentions.
    (tmp_path / "mentioned.txt").write_text("the content of a file")
    (worktree.path / "CLAUDE.md").write_text(f"Use tabs.\n@{tmp_path / 'mentioned.txt'}\n")

    assert await turn(host, granted) == RunClaudeResult([prompt_id(granted.job)])

    assert "# Login\\\\n\\\\nAdd a login page" in json.dumps(conversations.asked[0])
    assert "on the branch" in conversations.asked[0]
    assert "Use tabs." in conversations.asked[0]
    assert "the content of a file" not in conversations.asked[0]
    environment = (worktree.path / "environment.log").read_text()
    assert not any(name in environment for name in (*SECRETS, "the value of"))
    assert f"HOME={host.sessions / granted.job.id}\n" in environment
    row = await host.world.read(granted.job)
    assert (row.phase, row.session_id, row.attempt) == (Phase.WORKING, granted.job.id, 1)
    assert (row.pid, row.exit_code, row.model, row.result) == (None, 0, MODEL, "Added it.")
    assert (row.usage.turns, row.usage.input_tokens, row.usage.output_tokens) == (2, 200, 40)
    assert row.claude_seconds > 0
    assert processes_of(granted.job) == []
    saved = await host.world.store.load_session(granted.job.id)
    assert saved == (granted.job.id, transcript_file(host, granted.job).read_bytes())
    lines = (await conversations.lines(row))[1:]
    assert not any("Use tabs." in line.content for line in lines)
    assert {line.type for line in lines} == {MessageType.STDOUT}
    kinds = [json.loads(line.content)["type"] for line in lines]
    assert "command_lifecycle" not in kinds
    assert kinds[0] == "system"
    assert kinds[-1] == "result"
    assert "assistant" in kinds


async def test_a_failed_turn_records_its_usage(conversations: Conversations) -> None:
    message = "prompt is too long: 300000 tokens > 200000 maximum"
    conversations.script(
        {"tools": [["Bash", {"command": "true"}]]},
        {"status": 400, "error": "invalid_request_error", "message": message},
        repeat_last=True,
    )
    host = conversations.host()
    granted, _ = await host.prepared()
    with pytest.raises(JobFailure) as caught:
        await turn(host, granted)
    assert caught.value.code is FailureCode.PROMPT_TOO_LONG
    row = await host.world.read(granted.job)
    assert (row.pid, row.result) == (None, None)
    assert row.exit_code == 1
    assert row.usage.input_tokens == 100
    assert await host.world.store.load_session(granted.job.id) is not None


async def test_a_credential_counts_as_refused_until_a_turn_succeeds(
    conversations: Conversations,
) -> None:
    host = conversations.host(is_subscription=True)
    granted, _ = await host.prepared()
    fine: Step = {"text": "Fine."}
    refused: Step = {"status": 401, "error": "authentication_error", "message": "invalid token"}
    too_long: Step = {
        "status": 400,
        "error": "invalid_request_error",
        "message": "prompt is too long: 300000 tokens > 200000 maximum",
    }
    outcomes: list[bool] = []
    for attempt, step in enumerate((fine, refused, too_long, fine), 1):
        conversations.script(step, repeat_last=True)
        with contextlib.suppress(JobFailure):
            await turn(host, granted, 1, attempt)
        outcomes.append(host.credential.is_refused)
    assert outcomes == [False, True, True, False]


async def test_messages_reach_a_running_turn_once(conversations: Conversations) -> None:
    conversations.script({"delay": 1.0, "text": "First."}, {"text": "Second."}, repeat_last=True)
    host = conversations.host()
    granted = await host.grant_task()
    await host.prepare(granted)
    message_id = await conversations.user_says(granted.job, "One more thing.")
    deliver = host.claude.deliver_message
    early, unknown = (
        DeliverMessageInput(granted.key, message_id),
        DeliverMessageInput(granted.key, UNKNOWN_ID),
    )
    assert await host.run(deliver, early) == DeliverMessageResult(delivered=False)

    running = asyncio.create_task(turn(host, granted))
    await eventually(lambda: len(conversations.asked) == 1)
    delivered = await asyncio.gather(*(host.run(deliver, early) for _ in range(2)))
    assert delivered == [DeliverMessageResult(delivered=True)] * 2
    for refused in (unknown, replace(early, lease=LeaseKey(granted.job.id, 2))):
        assert await host.run(deliver, refused) == DeliverMessageResult(delivered=False)
    assert await running == RunClaudeResult([prompt_id(granted.job), message_id])

    assert conversations.asked[-1].count("One more thing.") == 1
    assert await host.run(deliver, early) == DeliverMessageResult(delivered=False)
    assert (await host.world.read(granted.job)).result == "Second."


async def test_a_turn_needs_its_lease(conversations: Conversations) -> None:
    host = conversations.host()
    granted = await host.grant()
    with pytest.raises(LeaseLost):
        await host.run(
            host.claude.run_claude,
            replace(turn_input(granted), lease=LeaseKey(granted.job.id, 2)),
        )
    assert not host.sessions.exists()


def with_bin(host: WorkerHost, path: str) -> ClaudeSetup:
    setup = host.claude._setup
    return replace(setup, claude=setup.claude.model_copy(update={"bin": path}))


async def test_a_turn_under_a_lease_that_was_lost_is_stopped(
    host: WorkerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable = tmp_path / "claude"
    executable.write_text("#!/bin/sh\ntouch $HOME/started\nsleep 60\n")
    executable.chmod(0o755)
    host.claude._setup = with_bin(host, str(executable))
    enter = host.claude._progress.enter

    async def enter_when_it_runs(*arguments: Any, **changes: Any) -> None:
        await eventually(lambda: any(host.sessions.glob("*/started")))
        await enter(*arguments, **changes)

    monkeypatch.setattr(host.claude._progress, "enter", enter_when_it_runs)
    granted, _ = await host.prepared()
    await host.world.store.update_job(granted.job.id, {"lease": 2}, Guard(LIVE))
    with pytest.raises(LeaseLost):
        await turn(host, granted)
    assert processes_of(granted.job) == []
    row = await host.world.read(granted.job)
    assert (row.phase, row.pid) == (Phase.PREPARING, None)


async def test_without_the_cli_the_job_fails(host: WorkerHost) -> None:
    granted, _ = await host.prepared()
    host.claude._setup = with_bin(host, "/nowhere/claude")
    with pytest.raises(JobFailure) as caught:
        await turn(host, granted)
    assert caught.value.code is FailureCode.CLAUDE_NOT_FOUND
    assert host.leases.require(granted.key).message_queue is None


async def test_usage_of_a_turn_is_added_once(host: WorkerHost) -> None:
    granted = await host.grant()
    used = Usage(turns=3, cost_usd=0.25, input_tokens=100)

    async def record(number: int, attempt: int) -> Any:
        await host.claude._add_usage(turn_input(granted, number, attempt), used, 1.5)
        return await host.world.read(granted.job)

    for _ in range(2):
        row = await record(1, 1)
    assert (row.usage, row.claude_seconds) == (used, 1.5)
    for number, attempt in ((1, 2), (2, 1)):
        row = await record(number, attempt)
    assert (row.usage.turns, row.usage.cost_usd, row.claude_seconds) == (9, 0.75, 4.5)
