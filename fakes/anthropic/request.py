"""Parse a request to the Messages API: session, user messages, tools and tool results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
# A session that was resumed in another directory has a later line, with "(was …)" at its end.
_DIRECTORY = re.compile(r"Primary working directory: (.+?)(?: \(was .+\))?$", re.MULTILINE)
# Claude Code 2.1.330 passes on a message sent during a turn in this form (measured).
_MID_TURN = re.compile(
    r"The user sent a new message while you were working:\n(.*?)\n\nThis is how Claude Code",
    re.DOTALL,
)
_MARKER = re.compile(r"\[\[script:([A-Za-z0-9._-]{1,64})\]\]")


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call, as the model sees it."""

    tool: str
    text: str
    failed: bool


@dataclass(frozen=True)
class Conversation:
    """A parsed model call.

    Attributes:
        session: the CLI's session id; empty if the request has none.
        agent: the id of the calling subagent; empty for the main conversation.
        tools: the names of the offered tools.
        said: all user messages with text, oldest first, without system reminders. Messages sent
            during a turn are included.
        results: the tool results since the last user message.
        directory: the last working directory in the request; empty if there is none.
    """

    session: str
    agent: str
    tools: frozenset[str]
    said: tuple[str, ...]
    results: tuple[ToolResult, ...]
    directory: str

    @property
    def script(self) -> str | None:
        """The NAME of a `[[script:NAME]]` marker in the first user message."""
        marker = _MARKER.search(self.said[0]) if self.said else None
        return marker[1] if marker else None


def read_conversation(body: Mapping[str, Any], headers: Mapping[str, str]) -> Conversation:
    """Parse a request. Missing parts are empty."""
    said, results = _exchange(_messages(body))
    return Conversation(
        session=headers.get("x-claude-code-session-id", ""),
        agent=headers.get("x-claude-code-agent-id", ""),
        tools=frozenset(str(tool.get("name")) for tool in body.get("tools") or ()),
        said=said,
        results=results,
        directory=_directory(body),
    )


def _messages(body: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (str(message.get("role")), _blocks(message.get("content")))
        for message in body.get("messages") or ()
    ]


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or () if isinstance(block, dict)]


def _exchange(
    messages: list[tuple[str, list[dict[str, Any]]]],
) -> tuple[tuple[str, ...], tuple[ToolResult, ...]]:
    said: list[str] = []
    results: list[ToolResult] = []
    tools: dict[Any, str] = {}
    for role, blocks in messages:
        if role == "assistant":
            tools.update({b.get("id"): b["name"] for b in blocks if b.get("type") == "tool_use"})
        results += [_result(b, tools) for b in blocks if b.get("type") == "tool_result"]
        texts = [_text(blocks)] if role == "user" else _mid_turn(blocks)
        if spoken := [text for text in texts if text]:
            said += spoken
            results.clear()
    return tuple(said), tuple(results)


def _result(block: dict[str, Any], tools: Mapping[Any, str]) -> ToolResult:
    return ToolResult(
        tool=tools.get(block.get("tool_use_id"), ""),
        text=_text(_blocks(block.get("content"))),
        failed=bool(block.get("is_error")),
    )


def _text(blocks: list[dict[str, Any]]) -> str:
    texts = [str(block.get("text", "")) for block in blocks if block.get("type") == "text"]
    return _REMINDER.sub("", "\n".join(texts)).strip()


def _mid_turn(blocks: list[dict[str, Any]]) -> list[str]:
    return [text.strip() for text in _MID_TURN.findall(_text(blocks))]


def _directory(body: Mapping[str, Any]) -> str:
    messages = [("system", _blocks(body.get("system"))), *_messages(body)]
    # Tool results are excluded: a file may contain any text.
    texts = [
        str(block.get("text", ""))
        for role, blocks in messages
        if role != "assistant"
        for block in blocks
    ]
    named = _DIRECTORY.findall("\n".join(texts))
    return named[-1].strip() if named else ""
