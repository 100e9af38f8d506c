from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.claude.events import (
    ApiRetry,
    AssistantError,
    Event,
    Heartbeat,
    Other,
    Result,
    SessionStarted,
    SessionState,
    read_event,
    read_line,
)
from agent.process.lines import OutputLine
from agent.protocol import MessageAcknowledged
from domain.jobs import Usage

KNOWN: list[tuple[dict[str, Any], Event]] = [
    (
        {"type": "system", "subtype": "init", "session_id": "s", "model": "m", "tools": []},
        SessionStarted("s", "m"),
    ),
    (
        {"type": "system", "subtype": "session_state_changed", "state": "idle"},
        SessionState("idle"),
    ),
    (
        {"type": "command_lifecycle", "command_uuid": "u", "state": "started"},
        MessageAcknowledged("u", "started"),
    ),
    (
        {
            "type": "system",
            "subtype": "api_retry",
            "attempt": 1,
            "max_retries": 4,
            "error_status": 429,
            "error": "rate_limit",
        },
        ApiRetry(1, 4, 429, "rate_limit"),
    ),
    (
        {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1}},
        Other("rate_limit_event"),
    ),
    (
        {
            "type": "assistant",
            "error": "rate_limit",
            "api_error": "usage_limit_reached",
            "api_error_params": {"rate_limit_info": {"resetsAt": 0}},
            "message": {"content": [{"type": "text", "text": "Limit."}]},
        },
        AssistantError(
            "rate_limit", "Limit.", "usage_limit_reached", None, datetime.fromtimestamp(0, UTC)
        ),
    ),
    ({"type": "assistant", "message": {"content": []}}, Other("assistant")),
    ({"type": "tool_progress", "heartbeat": True}, Heartbeat()),
    ({"type": "keep_alive"}, Heartbeat()),
    ({"type": "brand_new"}, Other("brand_new")),
    ({"type": 7}, Other(None)),
    (
        {
            "type": "result",
            "subtype": "error_max_turns",
            "is_error": True,
            "session_id": "s",
            "num_turns": 3,
            "errors": ["Reached."],
            "terminal_reason": "max_turns",
            "api_error_status": None,
            "total_cost_usd": 1,
            "modelUsage": {
                "a": {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": 3},
                "b": {"inputTokens": 10, "cacheCreationInputTokens": 4},
            },
        },
        Result(
            "error_max_turns",
            True,
            None,
            "s",
            terminal_reason="max_turns",
            errors=("Reached.",),
            turns=3,
            session_usage=Usage(
                cost_usd=1.0,
                input_tokens=11,
                output_tokens=2,
                cache_read_tokens=3,
                cache_creation_tokens=4,
            ),
        ),
    ),
]


@pytest.mark.parametrize(("fields", "event"), KNOWN)
def test_known_lines_are_parsed(fields: dict[str, Any], event: Event) -> None:
    assert read_event(json.dumps(fields)) == event


@pytest.mark.parametrize("odd", ["", "{", "null", "[]", '"x"', "[" * 100_000, "\ufffd", "NaN"])
def test_a_line_that_is_not_an_object_is_stored(odd: str) -> None:
    assert read_event(odd) == Other(None)
    assert is_stored(odd) is bool(odd)


ODD_VALUES = [
    None,
    True,
    7,
    -1.5,
    10**30,
    float("nan"),
    float("inf"),
    "x",
    [],
    [None],
    {},
    {"a": 1},
]


@pytest.mark.parametrize("fields", [fields for fields, _ in KNOWN])
def test_no_field_value_raises(fields: dict[str, Any]) -> None:
    for name in fields:
        for value in ODD_VALUES:
            line = json.dumps({**fields, name: value})
            assert read_event(line) is not None
            assert is_stored(line) in {True, False}
    for name, inner in fields.items():
        for inner_name in inner if isinstance(inner, dict) else ():
            for value in ODD_VALUES:
                assert read_event(json.dumps({**fields, name: {**inner, inner_name: value}}))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"type":"assistant"}', True),
        ('{"type":"user"}', True),
        ('{"type":"result"}', True),
        ('{"type":"system","subtype":"init"}', True),
        ('{"type":"system","subtype":"api_retry"}', True),
        ('{"type":"something_new"}', True),
        ("plain text", True),
        ("   ", False),
        ('{"type":"stream_event"}', False),
        ('{"type":"command_lifecycle"}', False),
        ('{"type":"tool_progress"}', False),
        ('{"type":"control_response"}', False),
        ('{"type":"system","subtype":"session_state_changed"}', False),
    ],
)
def test_protocol_messages_are_not_stored(line: str, expected: bool) -> None:
    assert is_stored(line) is expected


def is_stored(line: str) -> bool:
    """Return whether a line of standard output is stored."""
    return read_line(OutputLine("stdout", line))[0].is_stored
