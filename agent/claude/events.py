"""One line of Claude's standard output, read into what the orchestrator reacts to.

The CLI adds event types with every version; what is not known here is `Other`, never an error.
The shapes were measured with CLI 2.1.330.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from domain.jobs import Usage

Fields = Mapping[str, Any]

HEARTBEATS = frozenset({"keep_alive", "tool_progress"})
"""Types that repeat by the clock while nothing happens: `tool_progress` every 30 s (measured)."""

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
"""Types that only drive the protocol, or repeat parts of a later line."""


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """A turn begins; comes once per turn, with the same session id."""

    session_id: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class SessionState:
    """`running`, `requires_action` or `idle`."""

    state: str


@dataclass(frozen=True, slots=True)
class MessageTaken:
    """What became of a user message: `queued`, `started`, `completed` or `cancelled`.

    `started` means that it is in the conversation and in the transcript.
    """

    uuid: str
    state: str


@dataclass(frozen=True, slots=True)
class ApiRetry:
    """The API refused or did not answer, and the CLI will try again."""

    attempt: int
    max_retries: int
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AssistantError:
    """An API error as the CLI words it; the turn's `result` follows.

    `kind` is the CLI's word, such as `authentication_failed`; `api_error` and `api_error_type`
    are finer when present. `api_error` is `usage_limit_reached` when a quota is used up, and
    `resets_at` its end where the API told it; `limit_type` is `five_hour`, `seven_day`, or such as
    `seven_day_opus` for the quota of one model. The CLI's `rate_limit_event` lines do not tell:
    one with status `rejected` comes with too many requests at once as well (measured).
    """

    kind: str
    text: str
    api_error: str | None = None
    api_error_type: str | None = None
    resets_at: datetime | None = None
    limit_type: str | None = None


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The `result` line of a turn.

    `subtype` is `success` for API errors too; `is_error` tells. `turns` (model calls) is of this
    turn; `session_usage` is the sum over the session so far, over all its processes (measured).
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
    """The CLI is there, or a tool still runs; neither has to be getting on."""


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
    | MessageTaken
    | ApiRetry
    | AssistantError
    | TurnEnded
    | Heartbeat
    | Other
)


def read_event(line: str) -> Event:
    """Read one line of standard output; never raises, whatever the line is."""
    fields = _object(line)
    if fields is None:
        return Other(None)
    kind = _text(fields.get("type"))
    key = f"system/{_text(fields.get('subtype'))}" if kind == "system" else kind
    read = _READERS.get(key or "")
    return (read(fields) if read else None) or Other(key)


def worth_storing(line: str, event: Event | None) -> bool:
    """Return whether a line of output belongs in the job's messages, raw and complete.

    Not stored are blank lines and events that only drive the protocol. `event` is the line's event,
    as `read_event` returns it.
    """
    match event:
        case MessageTaken() | SessionState() | Heartbeat():
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


def _message_taken(fields: Fields) -> Event:
    return MessageTaken(_text(fields.get("command_uuid")) or "", _text(fields.get("state")) or "")


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


def _turn_ended(fields: Fields) -> Event:
    errors = fields.get("errors")
    return TurnEnded(
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
    """Read a cost in US dollars and `modelUsage`: token counts per model, summed here."""
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
    "command_lifecycle": _message_taken,
    "assistant": _assistant,
    "result": _turn_ended,
    **dict.fromkeys(HEARTBEATS, lambda _: Heartbeat()),
}
