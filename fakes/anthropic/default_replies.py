"""Replies to any conversation, for the demo: a small change, or a question and an answer.

A reply depends only on the conversation, so the model continues correctly after a crash and resume.
"""

from __future__ import annotations

import hashlib
import re

from fakes.anthropic.request import Conversation, ToolResult
from fakes.anthropic.steps import Step

_SLUG_LENGTH = 40
_SUBJECT_LENGTH = 72
_NUMBERING = re.compile(r"^\s*\d+(?:\t|→)")


def reply(conversation: Conversation) -> Step:
    """Write a file if the Write tool is offered. Otherwise read the README and ask a question."""
    if "Write" in conversation.tools:
        return _code_reply(conversation)
    return _task_reply(conversation)


def _code_reply(conversation: Conversation) -> Step:
    prompt = conversation.said[0] if conversation.said else ""
    path = _note_path(prompt)
    used = [result.tool for result in conversation.results]
    if not used or used[-1] == "Read":
        return {
            "text": f"I'll put a note about “{_subject(prompt)}” into {path}.",
            "tools": [["Write", _note(path, prompt, conversation.session)]],
        }
    if conversation.results[-1].failed and "Read" not in used:
        # The Write tool refuses to replace a file that this session has not read.
        return {
            "text": f"{path} is there already, so I read it first.",
            "tools": [["Read", {"file_path": f"$CWD/{path}"}]],
        }
    if conversation.results[-1].failed:
        return {"text": f"I could not write {path}: {conversation.results[-1].text}"}
    return {"text": f"I wrote {path}. It holds the request “{_subject(prompt)}” as a note."}


def _note_path(prompt: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", _subject(prompt).lower())[:_SLUG_LENGTH].strip("-")
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:6]
    return f"notes/{slug or 'note'}-{digest}.md"


def _note(path: str, prompt: str, session: str) -> dict[str, str]:
    quoted = "\n".join(f"> {line}".rstrip() for line in prompt.splitlines())
    content = (
        f"# {_subject(prompt)}\n\n{quoted}\n\n"
        f"Written by the demo's scripted model in session {session or 'without an id'}.\n"
    )
    return {"file_path": f"$CWD/{path}", "content": content}


def _task_reply(conversation: Conversation) -> Step:
    if len(conversation.said) > 1:
        return {"text": f"Thank you. You said “{_subject(conversation.said[-1])}”. Noted."}
    if not conversation.results and "Read" in conversation.tools:
        return {
            "text": "I'll look at the README first.",
            "tools": [["Read", {"file_path": "$CWD/README.md"}]],
        }
    prompt = conversation.said[0] if conversation.said else ""
    return {
        "text": f"{_impression(conversation.results)} About “{_subject(prompt)}”: "
        "who is it for, and what would make it good enough?"
    }


def _impression(results: tuple[ToolResult, ...]) -> str:
    if not results or results[-1].failed:
        return "I found no README.md to go by."
    lines = (_NUMBERING.sub("", line).strip("# \t") for line in results[-1].text.splitlines())
    title = next((line for line in lines if line), "nothing")
    return f"The README begins with “{title[:_SUBJECT_LENGTH]}”."


def _subject(text: str) -> str:
    """Return the first line that is not a heading, otherwise the first heading."""
    lines = [line.strip() for line in text.splitlines() if line.strip("# \t")]
    plain = [line for line in lines if not line.startswith("#")]
    return (plain or lines or ["nothing"])[0].strip("# \t")[:_SUBJECT_LENGTH]
