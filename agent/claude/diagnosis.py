"""Determine why a Claude process failed.

The CLI reports an API error as an `assistant` line with `error`, followed by a `result` with
`is_error` and the subtype `success`. Its exit code is 1 for almost every error (measured with CLI
2.1.330).
"""

from __future__ import annotations

import signal
from datetime import datetime

from agent.claude.events import AssistantError, Result
from agent.claude.run_state import RunState
from domain.errors import JobFailure
from domain.failures import FailureCode

MAX_REASON_CHARACTERS = 1000
"""Longest quotation of the CLI in a failure message."""

_REFUSALS = 2
"""The first refusal may only mean that an OAuth token had to be renewed. After the second, the CLI
retries for 1.2 s with a token and for 8 s with a key, which cannot succeed (measured)."""

_BY_SUBTYPE = {
    "error_max_turns": FailureCode.MAX_TURNS,
    "error_max_budget_usd": FailureCode.BUDGET_REACHED,
}
_BY_TERMINAL_REASON = {
    "prompt_too_long": FailureCode.PROMPT_TOO_LONG,
    "blocking_limit": FailureCode.PROMPT_TOO_LONG,
    "budget_exhausted": FailureCode.BUDGET_REACHED,
}
_BY_ERROR = {
    "authentication_failed": FailureCode.CLAUDE_AUTHENTICATION,
    "billing_error": FailureCode.CLAUDE_BILLING,
    "usage_limit_reached": FailureCode.USAGE_LIMIT,
    "rate_limit": FailureCode.CLAUDE_OVERLOADED,
    "overloaded_error": FailureCode.CLAUDE_OVERLOADED,
    "server_error": FailureCode.CLAUDE_OVERLOADED,
    "connection_failed": FailureCode.CLAUDE_OVERLOADED,
    "model_not_found": FailureCode.MODEL_NOT_FOUND,
}
_BY_STATUS = {
    401: FailureCode.CLAUDE_AUTHENTICATION,
    402: FailureCode.CLAUDE_BILLING,
    403: FailureCode.CLAUDE_AUTHENTICATION,
    429: FailureCode.CLAUDE_OVERLOADED,
}
_BY_WORDS = {
    "No conversation found": FailureCode.SESSION_LOST,
    "Not logged in": FailureCode.CLAUDE_AUTHENTICATION,
    "Credit balance is too low": FailureCode.CLAUDE_BILLING,
    "Prompt is too long": FailureCode.PROMPT_TOO_LONG,
}


def diagnose(exit_code: int, state: RunState) -> JobFailure | None:
    """Return why the last turn failed; None if it succeeded.

    `transient` is set if a retry may succeed: Anthropic was unavailable, or the process was killed.
    """
    last = state.last
    if last is None:
        return state.stopped_for or _died(exit_code, state)
    if not last.is_error and last.subtype == "success":
        return None
    code = _code(last, state)
    # The CLI would name the rest of the budget that this process had, not the budget of the job.
    words = "" if code is FailureCode.BUDGET_REACHED else _words(last, state)
    return JobFailure(
        code,
        _sentence(code, words),
        transient=code is FailureCode.CLAUDE_OVERLOADED,
        resets_at=_resets_at(code, state.error),
    )


def _resets_at(code: FailureCode, error: AssistantError | None) -> datetime | None:
    # An earlier error of the turn may have been a usage limit without being the failure.
    return error.resets_at if error is not None and code is FailureCode.USAGE_LIMIT else None


def credential_refused(state: RunState) -> JobFailure | None:
    """Return the failure once the API has refused the credential repeatedly."""
    if state.refusals < _REFUSALS:
        return None
    code = FailureCode.CLAUDE_AUTHENTICATION
    return JobFailure(code, f"{code.sentence} The API refused it twice.")


def _died(exit_code: int, state: RunState) -> JobFailure:
    tail = state.stderr_tail.strip()
    code = _code_by_words(tail) or FailureCode.CLAUDE_FAILED
    how = _how_it_ended(exit_code)
    message = _sentence(code, f"{how} {tail}".strip())
    return JobFailure(code, message, transient=_was_killed(exit_code))


def _was_killed(exit_code: int) -> bool:
    return exit_code < 0 or exit_code > 128


def _how_it_ended(exit_code: int) -> str:
    if not _was_killed(exit_code):
        return f"Claude Code ended with exit code {exit_code} and without a result."
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"Claude Code was killed by {name} before it had a result."


def _code(last: Result, state: RunState) -> FailureCode:
    return (
        _BY_SUBTYPE.get(last.subtype)
        or _BY_TERMINAL_REASON.get(last.terminal_reason or "")
        or _code_by_error(state.error)
        or _code_by_status(last.api_error_status)
        or _code_by_words(_words(last, state))
        or FailureCode.CLAUDE_FAILED
    )


def _code_by_error(error: AssistantError | None) -> FailureCode | None:
    if error is None:
        return None
    words = (error.api_error, error.api_error_type, error.kind)
    return next((_BY_ERROR[word] for word in words if word in _BY_ERROR), None)


def _code_by_status(status: int | None) -> FailureCode | None:
    if status is not None and status >= 500:
        return FailureCode.CLAUDE_OVERLOADED
    return _BY_STATUS.get(status or 0)


def _code_by_words(text: str) -> FailureCode | None:
    return next((code for words, code in _BY_WORDS.items() if words in text), None)


def _words(last: Result, state: RunState) -> str:
    # Failures at startup are in `errors` or on stderr.
    error = state.error.text if state.error is not None else ""
    return last.text or " ".join(last.errors) or error or state.stderr_tail.strip()


def _sentence(code: FailureCode, words: str) -> str:
    return f"{code.sentence} Claude Code said: {words[-MAX_REASON_CHARACTERS:]}" if words else ""
