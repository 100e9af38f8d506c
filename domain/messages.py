"""The messages of a job's message log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_USER_MESSAGE_BYTES = 64 * 1024
"""The limit of a message from a user."""

MAX_CONTENT_CHARACTERS = 1024 * 1024
"""The limit of stored content. Longer content is cut and ends with a note."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class MessageType(StrEnum):
    """The source of a message: the orchestrator, one of Claude's two streams, or the user."""

    SYSTEM = "system"
    STDOUT = "stdout"
    STDERR = "stderr"
    USER_INPUT = "user_input"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to store. The writer creates `id` (a UUID), so storing it is idempotent."""

    id: str
    type: MessageType
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message. `seq` counts the messages of a job, from 1."""

    id: str
    job_id: str
    type: MessageType
    content: str
    created_at: datetime
    seq: int


def is_storable(text: str) -> bool:
    """Return whether every store can store `text` unchanged, apart from its length."""
    return _UNSTORABLE.search(text) is None


def sanitize_text(text: str) -> str:
    """Return `text` without NUL and lone surrogates, cut to `MAX_CONTENT_CHARACTERS`.

    Postgres can store neither; each is replaced by U+FFFD. Idempotent.
    """
    clean = _UNSTORABLE.sub("\ufffd", text)
    if len(clean) <= MAX_CONTENT_CHARACTERS:
        return clean
    note = f" … [cut: {len(clean)} characters]"
    return clean[: MAX_CONTENT_CHARACTERS - len(note)] + note
