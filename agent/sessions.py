"""A session's transcript: the file from which the CLI resumes a conversation.

`projects/<directory named after the working directory>/<session id>.jsonl` in the configuration
directory. Any directory name will do for resuming (measured).
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.events import read_usage
from domain.jobs import Usage

_COST_STATE = b'{"type":"cost-state"'
_RESTORED = "restored"


def read_transcript(config_dir: Path, session_id: str) -> bytes | None:
    """Return the transcript, or None when there is none that the CLI could resume from.

    A crash may leave one without any entry of the conversation: the CLI notes what it queues
    before it begins, and a power cut can empty a file or fill it with zeros. It neither resumes
    such a session nor begins one with its id; entries that were only cut off do no harm (measured).
    """
    for path in _newest_first(config_dir, session_id):
        try:
            transcript = path.read_bytes()
        except FileNotFoundError:
            continue
        if any("uuid" in (_object(line) or {}) for line in transcript.split(b"\n")):
            return transcript
    return None


def discard_transcripts(config_dir: Path, session_id: str) -> None:
    """Remove what there is of a session, so that one with its id can begin anew. Repeatable."""
    for path in _newest_first(config_dir, session_id):
        path.unlink(missing_ok=True)


def restore_transcript(config_dir: Path, session_id: str, data: bytes) -> None:
    """Put a transcript where `--resume` finds it, in place of those that are there."""
    present = _newest_first(config_dir, session_id)
    target = present[0] if present else _path(config_dir, session_id)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).replace(target)
    for other in present[1:]:
        other.unlink(missing_ok=True)


def usage_so_far(transcript: bytes) -> Usage:
    """Return what the session has used by the end of the last turn that ended in order.

    A resumed CLI starts counting from there, so its `result` lines include it (measured).
    """
    for line in reversed(transcript.split(b"\n")):
        if line.startswith(_COST_STATE) and (state := _object(line)) is not None:
            return read_usage(state.get("totalCostUSD"), state.get("modelUsage"))
    return Usage()


def holds_message(transcript: bytes, message_id: str) -> bool:
    """Whether a user message is part of the conversation, so that it must not be sent again."""
    wanted = message_id.encode()
    return any(wanted in line and _records(line, message_id) for line in transcript.split(b"\n"))


def _records(line: bytes, message_id: str) -> bool:
    """Read one line.

    Messages merged into one have the last one's id and a list of the others; one that was taken
    up within a turn is an attachment (measured).
    """
    entry = _object(line)
    if entry is None:
        return False
    if entry.get("type") == "user":
        merged = entry.get("mergedSendUuids")
        return message_id in [entry.get("uuid"), *(merged if isinstance(merged, list) else [])]
    attachment = entry.get("attachment")
    return isinstance(attachment, dict) and attachment.get("source_uuid") == message_id


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _newest_first(config_dir: Path, session_id: str) -> list[Path]:
    pattern = f"*/{_checked(session_id)}.jsonl"
    found = list((config_dir / "projects").glob(pattern))
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _path(config_dir: Path, session_id: str) -> Path:
    return config_dir / "projects" / _RESTORED / f"{_checked(session_id)}.jsonl"


def _checked(session_id: str) -> str:
    return str(uuid.UUID(session_id))
