"""The message logs of jobs, the messages that wait for a job, and the session files."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Sequence

from typing_extensions import override

from domain.errors import LeaseLost
from domain.messages import Message, NewMessage, sanitize_text
from domain.timestamps import utc_now
from store.codec.rows import MESSAGE_COLUMNS, message_from_row
from store.codec.values import canonical_id, required_id, time_text
from store.protocol import MessageStore, SessionStore
from store.sqlite.connections import SqliteAggregate, reading, writing
from store.sqlite.statements import bounded, existing_job, json_list, named

_COLUMNS = ", ".join(MESSAGE_COLUMNS)

StoredLine = tuple[str, str, str, str]

COMPRESSION_LEVEL = 1
"""Higher levels take much longer and compress session files only slightly better."""


class SqliteMessages(SqliteAggregate, MessageStore, SessionStore):
    """The message logs of jobs, their inboxes and session files."""

    @override
    @writing
    def append_messages(
        self,
        connection: sqlite3.Connection,
        job_id: str,
        messages: Sequence[NewMessage],
        lease: int | None = None,
    ) -> None:
        _append_lines(connection, job_id, _prepare_lines(messages), lease)

    @override
    @reading
    def read_messages(
        self, connection: sqlite3.Connection, job_id: str, after: int, limit: int
    ) -> list[Message]:
        condition = "job_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        return _lines(connection, condition, canonical_id(job_id), bounded(after), bounded(limit))

    @override
    @reading
    def messages_by_id(
        self, connection: sqlite3.Connection, job_id: str, ids: Sequence[str]
    ) -> list[Message]:
        wanted = [line_id for line_id in map(canonical_id, ids) if line_id is not None]
        condition = "job_id = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY seq"
        return _lines(connection, condition, canonical_id(job_id), json_list(wanted))

    @override
    @writing
    def put_in_inbox(
        self, connection: sqlite3.Connection, job_id: str, message: NewMessage
    ) -> None:
        canonical = existing_job(connection, job_id)
        (line,) = _prepare_lines([message]).values()
        if not _is_in_transcript(connection, canonical, line[0]):
            connection.execute(
                "INSERT INTO agent_job_inbox (id, type, content, created_at, job_id) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (*line, canonical),
            )

    @override
    @writing
    def take_from_inbox(self, connection: sqlite3.Connection, job_id: str, message_id: str) -> bool:
        job, message = canonical_id(job_id), canonical_id(message_id)
        if job is None or message is None:
            return False
        line: StoredLine | None = connection.execute(
            "DELETE FROM agent_job_inbox WHERE id = ? AND job_id = ? "
            "RETURNING id, type, content, created_at",
            (message, job),
        ).fetchone()
        if line is not None:
            _append_lines(connection, job, {message: line}, lease=None)
        return _is_in_transcript(connection, job, message)

    @override
    async def save_session(self, job_id: str, session_id: str, session_file: bytes) -> None:
        compressed = await asyncio.to_thread(zlib.compress, session_file, COMPRESSION_LEVEL)
        await self._save_compressed(job_id, session_id, compressed)

    @writing
    def _save_compressed(
        self, connection: sqlite3.Connection, job_id: str, session_id: str, compressed: bytes
    ) -> None:
        canonical = existing_job(connection, job_id)
        connection.execute(
            "INSERT INTO agent_job_sessions (job_id, session_id, updated_at, transcript) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET "
            "session_id = excluded.session_id, updated_at = excluded.updated_at, "
            "transcript = excluded.transcript",
            (canonical, sanitize_text(session_id), time_text(utc_now()), compressed),
        )

    @override
    @reading
    def load_session(self, connection: sqlite3.Connection, job_id: str) -> tuple[str, bytes] | None:
        found = connection.execute(
            "SELECT session_id, transcript FROM agent_job_sessions WHERE job_id = ?",
            (canonical_id(job_id),),
        ).fetchone()
        return None if found is None else (found[0], zlib.decompress(found[1]))


def _prepare_lines(messages: Sequence[NewMessage]) -> dict[str, StoredLine]:
    """Return a mapping from id to (id, type, content, created_at).

    Raises:
        InvalidRequest: an id is not a UUID.
    """
    lines: dict[str, StoredLine] = {}
    for message in messages:
        line_id = required_id(message.id, "message id")
        line = (
            line_id,
            message.type.value,
            sanitize_text(message.content),
            time_text(message.created_at),
        )
        lines.setdefault(line_id, line)
    return lines


def _append_lines(
    connection: sqlite3.Connection, job_id: str, lines: dict[str, StoredLine], lease: int | None
) -> None:
    """Append the lines with a new id, numbered from the job's last `seq`.

    Raises:
        LeaseLost: the job has another lease.
        NotFound: the job does not exist.
    """
    canonical = existing_job(connection, job_id)
    _check_lease(connection, canonical, lease)
    stored = connection.execute(
        "SELECT id FROM agent_job_messages "
        "WHERE job_id = ? AND id IN (SELECT value FROM json_each(?))",
        (canonical, json_list(lines)),
    )
    old = {line_id for (line_id,) in stored}
    (last,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM agent_job_messages WHERE job_id = ?", (canonical,)
    ).fetchone()
    new = [line for line_id, line in lines.items() if line_id not in old]
    connection.executemany(
        "INSERT INTO agent_job_messages (job_id, seq, id, type, content, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(canonical, seq, *line) for seq, line in enumerate(new, last + 1)],
    )


def _check_lease(connection: sqlite3.Connection, canonical: str, lease: int | None) -> None:
    (present,) = connection.execute(
        "SELECT lease FROM agent_jobs WHERE id = ?", (canonical,)
    ).fetchone()
    if lease is not None and present != lease:
        raise LeaseLost(
            f"The job {canonical} has lease {present}, not {lease}. Stop working on it."
        )


def _lines(connection: sqlite3.Connection, condition: str, *parameters: object) -> list[Message]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM agent_job_messages WHERE {condition}", parameters
    )
    return [message_from_row(named(MESSAGE_COLUMNS, values)) for values in rows]


def _is_in_transcript(connection: sqlite3.Connection, job: str, message: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM agent_job_messages WHERE id = ? AND job_id = ?", (message, job)
    )
    return found.fetchone() is not None
