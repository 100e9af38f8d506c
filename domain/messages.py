"""The lines of a job's transcript."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_USER_MESSAGE_BYTES = 64 * 1024
"""Longest message a user may send into a conversation."""

MAX_CONTENT_CHARACTERS = 1024 * 1024
"""Longest content stored; longer lines are cut, with a note that says so at the end."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class MessageType(StrEnum):
    """Who a line comes from: the orchestrator, Claude's two streams, or the user."""

    SYSTEM = "system"
    STDOUT = "stdout"
    STDERR = "stderr"
    USER_INPUT = "user_input"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A line to be stored. `id` (a UUID made by the writer) makes storing it twice harmless."""

    id: str
    type: MessageType
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A stored line. `seq` grows by one within a job, from 1."""

    id: str
    job_id: str
    type: MessageType
    content: str
    created_at: datetime
    seq: int


def is_storable(text: str) -> bool:
    """Tell whether every store can keep `text` unchanged, where its length is not bounded."""
    return _UNSTORABLE.search(text) is None


def sanitize_text(text: str) -> str:
    """Return `text` as every store can keep it: without NUL and lone surrogates, and bounded.

    Postgres text holds neither; both are replaced by U+FFFD, one for one. Idempotent.
    """
    clean = _UNSTORABLE.sub("\ufffd", text)
    if len(clean) <= MAX_CONTENT_CHARACTERS:
        return clean
    note = f" … [cut: {len(clean)} characters]"
    return clean[: MAX_CONTENT_CHARACTERS - len(note)] + note
