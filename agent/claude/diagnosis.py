"""Why a Claude process failed, from what it said.

The CLI words an API error as one `assistant` line with `error`, then a `result` with `is_error`
and subtype `success`; its exit code is 1 for nearly everything (measured with CLI 2.1.330).
"""

from __future__ import annotations

import signal
from datetime import datetime

from agent.claude.events import AssistantError, TurnEnded
from agent.claude.run_state import RunState
from domain.errors import JobFailure
from domain.failures import FailureCode

MAX_REASON_CHARACTERS = 1000

_REFUSALS = 2
"""The first may be an OAuth token that had to be renewed; after the second the CLI gives a token up
in 1.2 s, and a key in 8 s with four retries (measured)."""

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
    """Return why the last turn failed, or None when it succeeded.

    `transient` is set where the same step may succeed in a moment: Anthropic was not reachable, or
    the process was killed.
    """
    last = state.last
    if last is None:
        return state.stopped_for or _died(exit_code, state)
    if not last.is_error and last.subtype == "success":
        return None
    code = _code(last, state)
    # Of a budget the CLI names what was left for this process, not what the job was given.
    words = "" if code is FailureCode.BUDGET_REACHED else _words(last, state)
    return JobFailure(
        code,
        _sentence(code, words),
        transient=code is FailureCode.CLAUDE_OVERLOADED,
        resets_at=_resets_at(code, state.error),
    )


def _resets_at(code: FailureCode, error: AssistantError | None) -> datetime | None:
    """Return when a usage limit ends; other failures may follow the line that told of one."""
    return error.resets_at if error is not None and code is FailureCode.USAGE_LIMIT else None


def credential_refused(state: RunState) -> JobFailure | None:
    """Return why further retries are in vain, once the API has refused the credential for good."""
    if state.refusals < _REFUSALS:
        return None
    code = FailureCode.CLAUDE_AUTHENTICATION
    return JobFailure(code, f"{code.sentence} The API refused it again when it was retried.")


def _died(exit_code: int, state: RunState) -> JobFailure:
    """It ended in the middle of a turn, or before the first."""
    tail = state.stderr_tail.strip()
    code = _code_by_words(tail) or FailureCode.CLAUDE_FAILED
    how = _how_it_ended(exit_code)
    message = _sentence(code, f"{how} {tail}".strip())
    return JobFailure(code, message, transient=_was_killed(exit_code))


def _was_killed(exit_code: int) -> bool:
    return exit_code < 0 or exit_code > 128


def _how_it_ended(exit_code: int) -> str:
    if not _was_killed(exit_code):
        return f"Claude Code ended without a result, with exit code {exit_code}."
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"Claude Code was ended by {name} before it had a result."


def _code(last: TurnEnded, state: RunState) -> FailureCode:
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


def _code_by_words(said: str) -> FailureCode | None:
    return next((code for words, code in _BY_WORDS.items() if words in said), None)


def _words(last: TurnEnded, state: RunState) -> str:
    """The CLI's own wording; startup failures stand in `errors` or on stderr."""
    error = state.error.text if state.error is not None else ""
    return last.text or " ".join(last.errors) or error or state.stderr_tail.strip()


def _sentence(code: FailureCode, words: str) -> str:
    """The code's advice, then what Claude Code said."""
    return f"{code.sentence} Claude Code said: {words[-MAX_REASON_CHARACTERS:]}" if words else ""
