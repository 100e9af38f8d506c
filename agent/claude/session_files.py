"""The session file, from which the CLI resumes a conversation.

Its path in the configuration directory is
`projects/<directory named after the working directory>/<session id>.jsonl`. The CLI resumes from
this file even if files in other directories have the same session id (measured).
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
"""Largest session file that is read and stored."""

MAX_ENTRY_BYTES = 16 * 1024 * 1024
"""Largest entry that is parsed: its Python objects can take twenty times as much memory."""

MAX_ENTRIES = 10_000
"""Maximum number of entries to search; the relevant entry is among the last of a file."""

_MAX_NAME_LENGTH = 200
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionFiles:
    """The file of one session on this host.

    The job can write it, so it is opened only through `sandbox.files`. All methods block: call them
    in a thread.

    Args:
        config_dir: the CLI's configuration directory. A job cannot replace its parent directory.
        cwd: the CLI's working directory.
        session_id: a UUID; also the id of the job.
        is_shared: whether `config_dir` is the operator's. Links to it are followed then.
    """

    config_dir: Path
    cwd: Path
    session_id: str
    is_shared: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str], cwd: Path, session_id: str) -> Self:
        """Return the session file of a CLI with this environment and working directory."""
        is_shared = not has_own_config_dir(environment)
        return cls(config_dir_of(environment), cwd, session_id, is_shared)

    def __post_init__(self) -> None:
        uuid.UUID(self.session_id)

    def read(self) -> bytes | None:
        """Return the contents; None if there is no file that the CLI could resume from.

        After a crash, a file can lack any entry of the conversation: the CLI records queued
        messages before it starts, and a power failure can empty a file or fill it with zeros. The
        CLI neither resumes such a session nor starts a new one with its id. Truncated entries do
        no harm (measured). An unsafe file is ignored with a warning in the log.
        """
        root, directory = self._location()
        try:
            transcript = files.read(root, f"{directory}/{self._file}", limit=MAX_TRANSCRIPT_BYTES)
        except FileNotFoundError:
            return None
        except files.UnsafeFile as error:
            log.warning("The session file of job %s was ignored: %s", self.session_id, error)
            return None
        has_conversation = any("uuid" in entry for entry in _last_entries(transcript, b'"uuid"'))
        return transcript if has_conversation else None

    def restore(self, transcript: bytes) -> None:
        """Write the session file, replacing an existing one, so that `--resume` uses it."""
        root, directory = self._create_directory()
        files.write(root, f"{directory}/{self._file}", transcript)

    def discard(self) -> None:
        """Delete the session, so that a new one can have its id. Idempotent."""
        root, directory = self._create_directory()
        projects = os.path.dirname(directory)
        # In every directory, because another CLI version may use another directory name.
        for name in files.names(root, projects):
            files.remove(root, f"{projects}/{name}/{self._file}")

    @property
    def _file(self) -> str:
        return f"{self.session_id}.jsonl"

    def _location(self) -> tuple[Path, str]:
        """Return a directory that the job cannot replace, and the session's directory inside it."""
        projects = self.config_dir / "projects"
        root = Path(os.path.realpath(projects)) if self.is_shared else self.config_dir.parent
        below = "." if self.is_shared else projects.relative_to(root)
        return root, f"{below}/{directory_name(os.path.realpath(self.cwd))}"

    def _create_directory(self) -> tuple[Path, str]:
        root, directory = self._location()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.make_directory(root, directory)
        return root, directory


def directory_name(cwd: str) -> str:
    """Return the name of the CLI's directory for the sessions of a working directory (measured).

    The CLI counts UTF-16 units, and replaces everything after 200 of them by a checksum.
    """
    encoded = cwd.encode("utf-16-le", "surrogatepass")
    units = [int.from_bytes(encoded[at : at + 2], "little") for at in range(0, len(encoded), 2)]
    name = re.sub("[^a-zA-Z0-9]", "-", "".join(map(chr, units)))
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{name[:_MAX_NAME_LENGTH]}-{_checksum(units)}"


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
    """Return the usage of the session up to the last turn that ended regularly.

    A resumed CLI continues counting from there, so its `result` lines include it (measured).
    """
    for entry in _last_entries(transcript, b'{"type":"cost-state"'):
        if entry.get("type") == "cost-state":
            return read_usage(entry.get("totalCostUSD"), entry.get("modelUsage"))
    return Usage()


def holds_message(transcript: bytes, message_id: str) -> bool:
    """Return whether a user message is part of the conversation and must not be sent again."""
    entries = _last_entries(transcript, message_id.encode())
    return any(_is_message(entry, message_id) for entry in entries)


def _is_message(entry: Mapping[str, Any], message_id: str) -> bool:
    # Merged messages have the id of the last one and a list of the others. A message that arrived
    # during a turn is an attachment (measured).
    if entry.get("type") == "user":
        merged = entry.get("mergedSendUuids")
        return message_id in [entry.get("uuid"), *(merged if isinstance(merged, list) else [])]
    attachment = entry.get("attachment")
    return isinstance(attachment, dict) and attachment.get("source_uuid") == message_id


def _last_entries(transcript: bytes, part: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield the entries whose lines contain `part`, the last one first.

    Other lines are neither copied nor parsed: a job can write millions of them.
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
