"""Each failure of Claude has an error and a remedy, and the work so far is kept."""

from __future__ import annotations

import pytest

from domain.failures import FailureCode
from fakes.anthropic.steps import Step
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.steps import bash, overwrite_session, say, write
from tests.stack import Json, Stack

FOR_EVER = 99
LOOKING: Step = {"tools": [["Bash", {"command": "ls"}]], "times": FOR_EVER}


def refused(status: int, error: str, message: str) -> Step:
    return {"status": status, "error": error, "message": message, "times": FOR_EVER}


def fail_after_a_file(stack: Stack, code: FailureCode, *steps: Step, **body: object) -> Json:
    """Let Claude write a file, then run `steps`; check the failure and the kept work."""
    client, name = stack.new_repository()
    prompt = stack.script([write("a.txt", "a"), *steps])
    job = failed_as(stack, stack.post_job(client, prompt, **body), code)
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == {"a.txt"}
    return job


@pytest.mark.failure(FailureCode.CLAUDE_AUTHENTICATION)
def test_a_key_that_anthropic_refuses(stack: Stack):
    refusal = refused(401, "authentication_error", "invalid x-api-key")
    refusal["headers"] = {"x-should-retry": "false"}
    job = fail_after_a_file(stack, FailureCode.CLAUDE_AUTHENTICATION, refusal)
    assert "ANTHROPIC_API_KEY" in job["error"]
    assert job["exit_code"] == 1


@pytest.mark.failure(FailureCode.MODEL_NOT_FOUND)
def test_a_model_that_does_not_exist(stack: Stack):
    refusal = refused(404, "not_found_error", "model: claude-none")
    job = fail_after_a_file(stack, FailureCode.MODEL_NOT_FOUND, refusal, model="claude-none")
    assert "claude-none" in job["error"]


@pytest.mark.failure(FailureCode.PROMPT_TOO_LONG)
def test_a_conversation_that_is_too_long_for_the_model(stack: Stack):
    refusal = refused(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000")
    fail_after_a_file(stack, FailureCode.PROMPT_TOO_LONG, refusal)


@pytest.mark.failure(FailureCode.MAX_TURNS)
def test_the_turn_limit_is_reached(stack: Stack):
    job = fail_after_a_file(stack, FailureCode.MAX_TURNS, LOOKING, maxTurns=2)
    assert job["num_turns"] >= 2


@pytest.mark.failure(FailureCode.BUDGET_REACHED)
def test_the_budget_is_reached(stack: Stack):
    job = fail_after_a_file(stack, FailureCode.BUDGET_REACHED, LOOKING, maxBudgetUsd=0.005)
    assert job["cost"]["usd"] >= 0.005


@pytest.mark.failure(FailureCode.CLAUDE_FAILED)
def test_an_unknown_error(stack: Stack):
    refusal = refused(400, "invalid_request_error", "Something odd.")
    job = fail_after_a_file(stack, FailureCode.CLAUDE_FAILED, refusal)
    assert "Something odd." in job["error"]


@pytest.mark.failure(FailureCode.SESSION_LOST)
def test_a_session_that_cannot_be_read_after_a_crash(stack: Stack):
    damage = overwrite_session('{"type":"user","uuid":"unknown"}')
    job = fail_after_a_file(
        stack, FailureCode.SESSION_LOST, bash(f"{damage}; kill -9 $PPID"), say("Not reached.")
    )
    assert job["attempt"] == 2
