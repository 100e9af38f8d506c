from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from agent.claude.events import AssistantError, Result, SessionStarted, read_event
from agent.claude.result import MAX_ANSWER_BYTES, result_of
from agent.claude.run_state import RunState
from agent.protocol import AgentResult
from domain.failures import FailureCode
from domain.jobs import Usage
from fakes.anthropic.steps import Step
from tests.integration.agent.conftest import Lines, ScriptedJob

RESET = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
OAUTH = {"CLAUDE_CODE_OAUTH_TOKEN": "test-token"}
LIMIT = "anthropic-ratelimit-unified-"
REJECTED = {f"{LIMIT}status": "rejected"}
QUOTA = {**REJECTED, f"{LIMIT}representative-claim": "five_hour"}
UNTIL = {f"{LIMIT}reset": str(int(RESET.timestamp()))}


def refusal(
    status: int, error: str, message: str = "No.", headers: Mapping[str, str] | None = None
) -> Step:
    step: Step = {"status": status, "error": error, "message": message, "times": 9}
    return {**step, "headers": headers or {}}


def too_many(**headers: str) -> Step:
    return refusal(429, "rate_limit_error", headers=headers)


REFUSALS: list[tuple[FailureCode, Step, Mapping[str, str]]] = [
    (FailureCode.CLAUDE_AUTHENTICATION, refusal(401, "authentication_error"), {}),
    (FailureCode.CLAUDE_AUTHENTICATION, refusal(401, "authentication_error"), OAUTH),
    (FailureCode.CLAUDE_AUTHENTICATION, refusal(403, "permission_error"), {}),
    (FailureCode.CLAUDE_BILLING, refusal(402, "billing_error"), {}),
    (
        FailureCode.CLAUDE_BILLING,
        refusal(400, "invalid_request_error", "Your credit balance is too low to access it."),
        {},
    ),
    (FailureCode.CLAUDE_OVERLOADED, too_many(**{"retry-after": "1"}), {}),
    (FailureCode.CLAUDE_OVERLOADED, too_many(**{"retry-after": "1"}), OAUTH),
    (FailureCode.CLAUDE_OVERLOADED, too_many(**REJECTED, **UNTIL), OAUTH),
    (FailureCode.CLAUDE_OVERLOADED, too_many(**QUOTA, **UNTIL), {}),
    (FailureCode.CLAUDE_OVERLOADED, refusal(529, "overloaded_error"), {}),
    (FailureCode.CLAUDE_OVERLOADED, refusal(500, "api_error"), {}),
    (FailureCode.CLAUDE_OVERLOADED, {"drop": "before", "times": 9}, {}),
    (FailureCode.MODEL_NOT_FOUND, refusal(404, "not_found_error"), {}),
    (
        FailureCode.PROMPT_TOO_LONG,
        refusal(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
        {},
    ),
]


@pytest.mark.parametrize(
    ("code", "step", "credential"),
    REFUSALS,
    ids=[f"{row[0]}-{row[1].get('status', 'none')}-{len(row[2])}" for row in REFUSALS],
)
async def test_each_api_error_has_its_failure_code(
    job: ScriptedJob, code: FailureCode, step: Step, credential: Mapping[str, str]
) -> None:
    job.passed = dict(credential)
    job.changes["CLAUDE_CODE_MAX_RETRIES"] = "0"
    job.script(step)
    lines = Lines()

    result = (await job.turn("Go.", lines=lines)).result

    assert result.failure is not None, lines.text
    assert result.failure.code is code, lines.text
    assert code.sentence in result.failure.message
    assert result.failure.transient is (code is FailureCode.CLAUDE_OVERLOADED)
    assert result.failure.resets_at is None
    assert result.answer is None


@pytest.mark.parametrize("headers", [UNTIL, {}], ids=["with a reset time", "without"])
async def test_a_usage_limit(job: ScriptedJob, headers: Mapping[str, str]) -> None:
    job.passed = OAUTH
    job.script(too_many(**QUOTA, **headers))

    failure = (await job.turn("Go.")).result.failure

    assert failure is not None
    assert failure.code is FailureCode.USAGE_LIMIT
    assert failure.resets_at == (RESET if headers else None)
    assert not failure.transient
    assert len(job.requests) == 1


async def test_a_usage_limit_warning_is_not_a_failure(job: ScriptedJob) -> None:
    job.passed = OAUTH
    warning = {**QUOTA, f"{LIMIT}status": "allowed_warning", **UNTIL}
    usage = {f"{LIMIT}5h-utilization": "0.9", f"{LIMIT}5h-reset": UNTIL[f"{LIMIT}reset"]}
    job.script({"text": "Done.", "headers": {**warning, **usage}})
    lines = Lines()

    report = await job.turn("Go.", lines=lines)

    assert "allowed_warning" in lines.text
    assert report.result.failure is None
    assert report.result.answer == "Done."


@pytest.mark.parametrize("credential", [{}, OAUTH], ids=["key", "token"])
async def test_a_refused_credential_ends_the_turn_early(
    job: ScriptedJob, credential: Mapping[str, str]
) -> None:
    job.passed = dict(credential)
    job.script(refusal(401, "authentication_error"))
    lines = Lines()

    report = await job.turn("Go.", lines=lines)

    assert report.result.failure is not None
    assert report.result.failure.code is FailureCode.CLAUDE_AUTHENTICATION
    assert FailureCode.CLAUDE_AUTHENTICATION.sentence in report.result.failure.message
    assert not report.result.failure.transient
    assert len(job.requests) == 2
    assert '"type":"result"' not in lines.text


async def test_a_single_refusal_does_not_end_the_turn(job: ScriptedJob) -> None:
    refused: Step = {"status": 401, "error": "authentication_error"}
    job.script(refused, {"tools": [["Glob", {"pattern": "*"}]]}, refused, {"text": "Done."})

    report = await job.turn("Go.")

    assert report.result.answer == "Done."
    assert len(job.requests) == 4


async def test_an_overload_resets_the_count_of_refusals(job: ScriptedJob) -> None:
    refused: Step = {"status": 401, "error": "authentication_error"}
    overloaded: Step = {"status": 529, "error": "overloaded_error"}
    job.script(refused, overloaded, refused, {"text": "Done."})

    assert (await job.turn("Go.")).result.answer == "Done."


async def test_a_missing_credential_is_an_authentication_failure(job: ScriptedJob) -> None:
    job.changes["ANTHROPIC_API_KEY"] = ""
    result = (await job.turn("Go.")).result
    assert result.failure is not None
    assert result.failure.code is FailureCode.CLAUDE_AUTHENTICATION


async def test_a_missing_session_is_reported(job: ScriptedJob) -> None:
    report = await job.turn("Go.", job.launch(resume=True))
    assert report.result.failure is not None
    assert report.result.failure.code is FailureCode.SESSION_LOST
    assert not report.result.failure.transient
    assert report.consumed == []


def judge(*events: object, exit_code: int = 0, **changes: Usage) -> AgentResult:
    state = RunState()
    for event in events:
        state.add(event)  # type: ignore[arg-type]
    before, after = changes.get("before", Usage()), changes.get("after", Usage())
    return result_of(exit_code, state, before, after)


def test_the_last_turn_decides() -> None:
    failed = Result("success", True, "API Error: 529", "s", api_error_status=529)
    done = Result("success", False, "Done.", "s", turns=2)
    started = SessionStarted("s", "m")
    error = AssistantError("server_error", "API Error: 529")

    result = judge(started, error, failed, started, done)

    assert (result.failure, result.answer, result.usage.turns) == (None, "Done.", 2)
    assert judge(started, done, started, error, failed).failure is not None


def test_a_turn_without_a_result_fails_even_after_a_success() -> None:
    started, done = SessionStarted("s", "m"), Result("success", False, "Done.", "s")
    result = judge(started, done, started, exit_code=137)
    assert result.failure is not None
    assert result.failure.code is FailureCode.CLAUDE_FAILED
    assert "SIGKILL" in result.failure.message
    assert result.failure.transient
    assert result.answer is None


def test_a_successful_result_overrides_the_exit_code() -> None:
    done = Result("success", False, "Done.", "s")
    assert judge(SessionStarted("s", "m"), done, exit_code=143).failure is None


def test_a_process_without_a_result_reports_its_stderr() -> None:
    state = RunState()
    state.add_stderr("Error: Invalid MCP configuration")
    result = result_of(1, state, Usage(), Usage())
    assert result.failure is not None
    assert result.failure.code is FailureCode.CLAUDE_FAILED
    assert "Invalid MCP configuration" in result.failure.message
    assert "exit code 1" in result.failure.message
    assert not result.failure.transient


def test_usage_excludes_earlier_processes_of_the_session() -> None:
    before = Usage(cost_usd=1.0, input_tokens=100, output_tokens=10)
    middle = Usage(cost_usd=1.5, input_tokens=150, output_tokens=15, cache_read_tokens=5)
    after = Usage(cost_usd=1.75, input_tokens=160, output_tokens=15)
    results = [
        Result("success", False, "One.", "s", turns=3, session_usage=middle),
        Result("success", False, "Two.", "s", turns=1, session_usage=middle),
    ]

    result = judge(SessionStarted("s", "m"), *results, before=before, after=after)

    assert result.usage == Usage(
        turns=4, cost_usd=0.75, input_tokens=60, output_tokens=5, cache_read_tokens=5
    )
    assert judge(results[0], before=Usage(cost_usd=9.0)).usage.cost_usd == 0.0
    assert judge(SessionStarted("s", "m")).usage.cost_usd is None


def test_a_long_answer_is_truncated_between_characters() -> None:
    done = Result("success", False, "é" * MAX_ANSWER_BYTES, "s")
    answer = judge(SessionStarted("s", "m"), done).answer
    assert answer == "é" * (MAX_ANSWER_BYTES // 2)


def test_an_unknown_error_keeps_the_message_of_claude() -> None:
    event = read_event('{"type":"result","subtype":"error_new","errors":["Something odd."]}')
    result = judge(SessionStarted("s", "m"), event, exit_code=1)
    assert result.failure is not None
    assert result.failure.code is FailureCode.CLAUDE_FAILED
    assert "Something odd." in result.failure.message
