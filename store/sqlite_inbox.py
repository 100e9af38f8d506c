"""Messages that users sent and that their jobs have not taken up yet."""

from __future__ import annotations

import sqlite3

from domain.messages import NewMessage
from store.row_values import canonical_id
from store.sqlite_messages import StoredLine, append_lines, prepare_lines
from store.sqlite_rows import existing_job


def put_in_inbox(connection: sqlite3.Connection, job_id: str, message: NewMessage) -> None:
    """Keep a message, unless its job has it in the inbox or in the transcript already.

    Raises:
        InvalidRequest: the message's id is no UUID.
        NotFound: no such job.
    """
    known = existing_job(connection, job_id)
    (line,) = prepare_lines([message]).values()
    if not _is_in_transcript(connection, known, line[0]):
        connection.execute(
            "INSERT INTO agent_job_inbox (id, type, content, created_at, job_id) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (*line, known),
        )


def take_from_inbox(connection: sqlite3.Connection, job_id: str, message_id: str) -> bool:
    """Move a message to the end of the transcript; return whether the transcript holds it now."""
    job, message = canonical_id(job_id), canonical_id(message_id)
    if job is None or message is None:
        return False
    line: StoredLine | None = connection.execute(
        "DELETE FROM agent_job_inbox WHERE id = ? AND job_id = ? "
        "RETURNING id, type, content, created_at",
        (message, job),
    ).fetchone()
    if line is not None:
        append_lines(connection, job, {message: line}, lease=None)
    return _is_in_transcript(connection, job, message)


def _is_in_transcript(connection: sqlite3.Connection, job: str, message: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM agent_job_messages WHERE id = ? AND job_id = ?", (message, job)
    )
    return found.fetchone() is not None
