"""Renders steps as content blocks, events and errors of the Messages API.

The order and fields of the events were measured with Claude Code 2.1.330.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from domain.errors import InvalidRequest
from fakes.anthropic.steps import Step

Block = dict[str, Any]
CHUNK = 64
REQUEST_ID = "req_scripted"
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_document(status: int, message: str, error: str | None = None) -> dict[str, Any]:
    """Build the body of an error answer. By default the status gives the error type."""
    kind = error or _ERRORS.get(status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": message or kind},
        "request_id": REQUEST_ID,
    }


def content_blocks(step: Step, directory: str) -> list[Block]:
    """Return the content blocks of a reply, with `$CWD` replaced.

    Raises:
        InvalidRequest: an input has `$CWD`, but the request names no working directory.
    """
    blocks: list[Block] = []
    if "thinking" in step:
        blocks.append({"type": "thinking", "thinking": step["thinking"], "signature": "c2ln"})
    if "text" in step:
        blocks.append({"type": "text", "text": step["text"]})
    for name, tool_input in step.get("tools", ()):
        blocks.append(
            {
                "type": "tool_use",
                "id": _new_id("toolu"),
                "name": name,
                "input": _with_directory(tool_input, directory),
            }
        )
    return blocks


def message_document(step: Step, model: str, blocks: list[Block]) -> dict[str, Any]:
    """Build the complete message for a request without streaming."""
    message = _message(step, model)
    message["content"] = blocks
    message["stop_reason"] = _stop_reason(step)
    message["usage"]["output_tokens"] = step.get("out_tokens", 20)
    return message


def message_events(step: Step, model: str, blocks: list[Block]) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed message in order."""
    yield {"type": "message_start", "message": _message(step, model)}
    for index, block in enumerate(blocks):
        yield from _block_events(index, block, step.get("chunk", CHUNK))
    if "sse_error" in step:
        message = step.get("message", step["sse_error"])
        yield {"type": "error", "error": {"type": step["sse_error"], "message": message}}
        return
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(step), "stop_sequence": None},
        "usage": {"output_tokens": step.get("out_tokens", 20)},
    }
    yield {"type": "message_stop"}


def encoded(event: dict[str, Any]) -> bytes:
    """Encode an event. The CLI ignores events without an `event:` line."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _message(step: Step, model: str) -> dict[str, Any]:
    return {
        "id": _new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": step.get("in_tokens", 100),
            "output_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "service_tier": "standard",
        },
    }


def _block_events(index: int, block: Block, chunk: int) -> Iterator[dict[str, Any]]:
    opening, deltas = _opening_and_deltas(block, chunk)
    yield {"type": "content_block_start", "index": index, "content_block": opening}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _opening_and_deltas(block: Block, chunk: int) -> tuple[Block, list[dict[str, str]]]:
    if block["type"] == "text":
        return {**block, "text": ""}, _deltas("text_delta", "text", block["text"], chunk)
    if block["type"] == "thinking":
        deltas = _deltas("thinking_delta", "thinking", block["thinking"], chunk)
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    written = json.dumps(block["input"])
    return {**block, "input": {}}, _deltas("input_json_delta", "partial_json", written, chunk)


def _deltas(kind: str, field: str, text: str, chunk: int) -> list[dict[str, str]]:
    pieces = (text[start : start + chunk] for start in range(0, len(text), chunk))
    return [{"type": kind, field: piece} for piece in pieces]


def _stop_reason(step: Step) -> str:
    return step.get("stop_reason", "tool_use" if step.get("tools") else "end_turn")


def _with_directory(value: Any, directory: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_directory(item, directory) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_directory(item, directory) for item in value]
    if not isinstance(value, str) or "$CWD" not in value:
        return value
    if not directory:
        raise InvalidRequest("The step uses $CWD, but the request names no working directory.")
    return value.replace("$CWD", directory)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"
