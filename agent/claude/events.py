"""Parse the lines of Claude's stream-JSON output into events.

Every CLI version adds event types, so an unknown line becomes `Other` and is never an error.
The formats were measured with CLI 2.1.330.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.process.lines import OutputLine
from agent.protocol import AgentLine, MessageAcknowledged, TurnEnded, TurnStarted
from domain.jobs import Usage

Fields = Mapping[str, Any]

HEARTBEATS = frozenset({"keep_alive", "tool_progress"})
"""Types sent periodically while nothing happens: `tool_progress` every 30 s (measured)."""

NOT_STORED = HEARTBEATS | frozenset(
    {
        "stream_event",
        "control_request",
        "control_response",
        "control_cancel_request",
        "command_lifecycle",
        "system/session_state_changed",
        "system/status",
        "system/thinking_tokens",
    }
)
"""Protocol messages, and partial messages that a later line contains in full."""


@dataclass(frozen=True, slots=True)
class SessionStarted(TurnStarted):
    """The `system/init` line: sent once per turn, always with the same session id."""

    session_id: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class SessionState:
    """`running`, `requires_action` or `idle`."""

    state: str


@dataclass(frozen=True, slots=True)
class ApiRetry:
    """An API call failed, and the CLI will retry it."""

    attempt: int
    max_retries: int
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AssistantError:
    """An API error in the CLI's words; the turn's `result` follows.

    `kind` is the CLI's category, such as `authentication_failed`. `api_error` and `api_error_type`
    are more precise if present. `api_error` is `usage_limit_reached` if a quota is used up.
    `resets_at` is the end of the limit, if the API named it. `limit_type` is `five_hour`,
    `seven_day`, or a name such as `seven_day_opus` for the quota of one model.

    The CLI's `rate_limit_event` lines are no evidence of a used-up quota: the status `rejected`
    also appears after too many concurrent requests (measured).
    """

    kind: str
    text: str
    api_error: str | None = None
    api_error_type: str | None = None
    resets_at: datetime | None = None
    limit_type: str | None = None


@dataclass(frozen=True, slots=True)
class Result(TurnEnded):
    """The `result` line of a turn.

    Check `is_error`: `subtype` is `success` for API errors too. `turns` counts the model calls of
    this turn. `session_usage` is the total of the session over all its processes (measured).
    """

    subtype: str
    is_error: bool
    text: str | None
    session_id: str | None
    api_error_status: int | None = None
    terminal_reason: str | None = None
    errors: tuple[str, ...] = ()
    turns: int = 0
    session_usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The CLI is alive or a tool is running; neither means progress."""


@dataclass(frozen=True, slots=True)
class Other:
    """A line that nothing here reacts to.

    `type` is the line's type, or `system/<subtype>` for system lines. It is None if the line is not
    a JSON object with a type.
    """

    type: str | None


Event = (
    SessionStarted
    | SessionState
    | MessageAcknowledged
    | ApiRetry
    | AssistantError
    | Result
    | Heartbeat
    | Other
)


def read_line(line: OutputLine) -> tuple[AgentLine, Event | None]:
    """Parse a line of either stream; the event is None on stderr."""
    if line.stream == "stderr":
        return AgentLine(line.stream, line.text, shows_progress=bool(line.text)), None
    event = read_event(line.text)
    neutral = event if isinstance(event, TurnStarted | TurnEnded | MessageAcknowledged) else None
    is_sign_of_life = isinstance(event, Heartbeat | MessageAcknowledged | SessionState)
    shows_progress = bool(line.text) and not is_sign_of_life
    is_stored = _is_stored(line.text, event)
    return AgentLine(line.stream, line.text, neutral, shows_progress, is_stored), event


def read_event(line: str) -> Event:
    """Parse one line of standard output; never raises."""
    fields = _object(line)
    if fields is None:
        return Other(None)
    kind = _text(fields.get("type"))
    key = f"system/{_text(fields.get('subtype'))}" if kind == "system" else kind
    read = _READERS.get(key or "")
    return (read(fields) if read else None) or Other(key)


def _is_stored(line: str, event: Event) -> bool:
    """Return whether a line of standard output belongs in the job's messages.

    Blank lines and protocol messages do not.
    """
    match event:
        case MessageAcknowledged() | SessionState() | Heartbeat():
            return False
        case Other(type=kind) if kind in NOT_STORED:
            return False
        case _:
            return bool(line.strip())


def _object(line: str) -> Fields | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _session_started(fields: Fields) -> Event:
    return SessionStarted(_text(fields.get("session_id")), _text(fields.get("model")))


def _session_state(fields: Fields) -> Event:
    return SessionState(_text(fields.get("state")) or "")


def _message_acknowledged(fields: Fields) -> Event:
    message_id, state = _text(fields.get("command_uuid")), _text(fields.get("state"))
    return MessageAcknowledged(message_id or "", state or "")


def _api_retry(fields: Fields) -> Event:
    return ApiRetry(
        attempt=_integer(fields.get("attempt")) or 0,
        max_retries=_integer(fields.get("max_retries")) or 0,
        status=_integer(fields.get("error_status")),
        error=_text(fields.get("error")),
    )


def _assistant(fields: Fields) -> Event | None:
    kind = _text(fields.get("error"))
    if kind is None:
        return None
    content = _mapping(fields.get("message")).get("content")
    blocks = [_mapping(block) for block in content] if isinstance(content, list) else []
    limit = _mapping(_mapping(fields.get("api_error_params")).get("rate_limit_info"))
    return AssistantError(
        kind=kind,
        text="\n".join(filter(None, (_text(block.get("text")) for block in blocks))),
        api_error=_text(fields.get("api_error")),
        api_error_type=_text(fields.get("api_error_type")),
        resets_at=_time(limit.get("resetsAt")),
        limit_type=_text(limit.get("rateLimitType")),
    )


def _result(fields: Fields) -> Event:
    errors = fields.get("errors")
    return Result(
        subtype=_text(fields.get("subtype")) or "",
        is_error=fields.get("is_error") is True,
        text=_text(fields.get("result")),
        session_id=_text(fields.get("session_id")),
        api_error_status=_integer(fields.get("api_error_status")),
        terminal_reason=_text(fields.get("terminal_reason")),
        errors=tuple(map(str, errors)) if isinstance(errors, list) else (),
        turns=_integer(fields.get("num_turns")) or 0,
        session_usage=read_usage(fields.get("total_cost_usd"), fields.get("modelUsage")),
    )


def read_usage(cost: object, by_model: object) -> Usage:
    """Parse a cost in US dollars and `modelUsage`; the token counts of all models are added up."""
    models = [_mapping(fields) for fields in _mapping(by_model).values()]
    return Usage(
        cost_usd=_number(cost),
        input_tokens=_sum(models, "inputTokens"),
        output_tokens=_sum(models, "outputTokens"),
        cache_read_tokens=_sum(models, "cacheReadInputTokens"),
        cache_creation_tokens=_sum(models, "cacheCreationInputTokens"),
    )


def _sum(models: list[Fields], name: str) -> int:
    return sum(_integer(fields.get(name)) or 0 for fields in models)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _time(value: object) -> datetime | None:
    seconds = _number(value)
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


_READERS: dict[str, Callable[[Fields], Event | None]] = {
    "system/init": _session_started,
    "system/session_state_changed": _session_state,
    "system/api_retry": _api_retry,
    "command_lifecycle": _message_acknowledged,
    "assistant": _assistant,
    "result": _result,
    **dict.fromkeys(HEARTBEATS, lambda _: Heartbeat()),
}
