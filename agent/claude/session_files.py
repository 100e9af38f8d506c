"""A session's transcript: the file from which the CLI resumes a conversation.

`projects/<directory named after the working directory>/<session id>.jsonl` in the configuration
directory. The CLI resumes from this file even where others have the session's id (measured).
"""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agent.claude.environment import config_dir_of, has_own_config_dir
from agent.claude.events import read_usage
from domain.jobs import Usage
from sandbox import files

MAX_TRANSCRIPT_BYTES = 256 * 1024 * 1024
"""The longest transcript that is read, and so the longest that is stored."""

MAX_ENTRY_BYTES = 16 * 1024 * 1024
"""The longest entry that is read: as Python objects it can take twenty times its bytes."""

MAX_ENTRIES = 10_000
"""The most entries that are looked at for one answer; the right one is among the first."""

_LONGEST_NAME = 200
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionFiles:
    """What the CLI keeps of one session on this host.

    The job can write all of it, so every file is opened through `sandbox.files`. All methods
    block: call them in a thread.

    Args:
        config_dir: the CLI's configuration directory. A job cannot replace the directory it is in.
        cwd: the CLI's working directory.
        session_id: a UUID; the id of the job, too.
        is_shared: whether `config_dir` is the operator's. Links that lead to it are followed then.
    """

    config_dir: Path
    cwd: Path
    session_id: str
    is_shared: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str], cwd: Path, session_id: str) -> Self:
        """Return the files of a CLI that runs with this environment in this directory."""
        is_shared = not has_own_config_dir(environment)
        return cls(config_dir_of(environment), cwd, session_id, is_shared)

    def __post_init__(self) -> None:
        uuid.UUID(self.session_id)

    def read(self) -> bytes | None:
        """Return the transcript, or None when there is none that the CLI could resume from.

        A crash may leave one without any entry of the conversation: the CLI notes what it queues
        before it begins, and a power cut can empty a file or fill it with zeros. It neither resumes
        such a session nor begins one with its id; entries that were only cut off do no harm
        (measured). An unsafe file counts as none, with a warning in the log.
        """
        root, directory = self._place()
        try:
            transcript = files.read(root, f"{directory}/{self._file}", limit=MAX_TRANSCRIPT_BYTES)
        except FileNotFoundError:
            return None
        except files.UnsafeFile as error:
            log.warning("Job %s goes on without its transcript: %s", self.session_id, error)
            return None
        is_begun = any("uuid" in entry for entry in _last_entries(transcript, b'"uuid"'))
        return transcript if is_begun else None

    def restore(self, transcript: bytes) -> None:
        """Put a transcript where `--resume` finds it, in place of whatever is there."""
        root, directory = self._made_place()
        files.write(root, f"{directory}/{self._file}", transcript)

    def discard(self) -> None:
        """Remove what there is of the session, so that one with its id can begin. Idempotent."""
        root, directory = self._made_place()
        projects = os.path.dirname(directory)
        # All of them, because another version of the CLI may name the directory otherwise.
        for name in files.names(root, projects):
            files.remove(root, f"{projects}/{name}/{self._file}")

    @property
    def _file(self) -> str:
        return f"{self.session_id}.jsonl"

    def _place(self) -> tuple[Path, str]:
        """Return the directory that the job cannot replace, and the session's one below it."""
        projects = self.config_dir / "projects"
        root = Path(os.path.realpath(projects)) if self.is_shared else self.config_dir.parent
        below = "." if self.is_shared else projects.relative_to(root)
        return root, f"{below}/{directory_name(os.path.realpath(self.cwd))}"

    def _made_place(self) -> tuple[Path, str]:
        root, directory = self._place()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.make_directory(root, directory)
        return root, directory


def directory_name(cwd: str) -> str:
    """Return how the CLI names the directory of the sessions of a working directory (measured).

    It counts in UTF-16, and puts a checksum in the place of all beyond 200 characters.
    """
    encoded = cwd.encode("utf-16-le", "surrogatepass")
    units = [int.from_bytes(encoded[at : at + 2], "little") for at in range(0, len(encoded), 2)]
    name = re.sub("[^a-zA-Z0-9]", "-", "".join(map(chr, units)))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{_checksum(units)}"


def _checksum(units: list[int]) -> str:
    """Return the absolute value of a 32-bit hash, in base 36."""
    value = 0
    for unit in units:
        value = (value * 31 + unit) % 2**32
    value = min(value, 2**32 - value)
    digits = ""
    while value:
        value, digit = divmod(value, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits or "0"


def usage_so_far(transcript: bytes) -> Usage:
    """Return what the session has used by the end of the last turn that ended in order.

    A resumed CLI starts counting from there, so its `result` lines include it (measured).
    """
    for entry in _last_entries(transcript, b'{"type":"cost-state"'):
        if entry.get("type") == "cost-state":
            return read_usage(entry.get("totalCostUSD"), entry.get("modelUsage"))
    return Usage()


def holds_message(transcript: bytes, message_id: str) -> bool:
    """Return whether a user message is part of the conversation, and must not be sent again."""
    entries = _last_entries(transcript, message_id.encode())
    return any(_records(entry, message_id) for entry in entries)


def _records(entry: Mapping[str, Any], message_id: str) -> bool:
    """Return whether an entry is that of a message.

    Messages merged into one have the last one's id and a list of the others; one that was taken
    up within a turn is an attachment (measured).
    """
    if entry.get("type") == "user":
        merged = entry.get("mergedSendUuids")
        return message_id in [entry.get("uuid"), *(merged if isinstance(merged, list) else [])]
    attachment = entry.get("attachment")
    return isinstance(attachment, dict) and attachment.get("source_uuid") == message_id


def _last_entries(transcript: bytes, part: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield the entries in whose lines a part occurs, from the last one on.

    Other lines are neither copied nor parsed: a job can leave millions of them.
    """
    begin = len(transcript)
    for _ in range(MAX_ENTRIES):
        at = transcript.rfind(part, 0, begin)
        if at < 0:
            return
        begin = transcript.rfind(b"\n", 0, at) + 1
        end = transcript.find(b"\n", at)
        line = transcript[begin : end if end >= 0 else None]
        if len(line) <= MAX_ENTRY_BYTES and (entry := _object(line)) is not None:
            yield entry


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
