"""The lines of jobs' transcripts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from domain.errors import LeaseLost
from domain.messages import Message, NewMessage, storable
from store.row_values import canonical_id, required_id, time_text
from store.rows import MESSAGE_COLUMNS, message_from_row
from store.sqlite_rows import bounded, existing_job, json_list, named

_COLUMNS = ", ".join(MESSAGE_COLUMNS)

StoredLine = tuple[str, str, str, str]


def prepare_lines(messages: Sequence[NewMessage]) -> dict[str, StoredLine]:
    """Return id to (id, type, content, created_at), each id once.

    Raises:
        InvalidRequest: an id is no UUID.
    """
    lines: dict[str, StoredLine] = {}
    for message in messages:
        line_id = required_id(message.id, "message id")
        line = (
            line_id,
            message.type.value,
            storable(message.content),
            time_text(message.created_at),
        )
        lines.setdefault(line_id, line)
    return lines


def append_messages(
    connection: sqlite3.Connection, job_id: str, messages: Sequence[NewMessage], lease: int | None
) -> None:
    """Store lines at the end of a job's transcript.

    Raises:
        InvalidRequest: a line's id is no UUID.
        LeaseLost: the job has another lease by now.
        NotFound: no such job.
    """
    append_lines(connection, job_id, prepare_lines(messages), lease)


def append_lines(
    connection: sqlite3.Connection, job_id: str, lines: dict[str, StoredLine], lease: int | None
) -> None:
    """Store those lines whose id is new, numbered on from the job's last.

    Raises:
        LeaseLost: the job has another lease by now.
        NotFound: no such job.
    """
    known = existing_job(connection, job_id)
    _check_lease(connection, known, lease)
    stored = connection.execute(
        "SELECT id FROM agent_job_messages "
        "WHERE job_id = ? AND id IN (SELECT value FROM json_each(?))",
        (known, json_list(lines)),
    )
    old = {line_id for (line_id,) in stored}
    (last,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM agent_job_messages WHERE job_id = ?", (known,)
    ).fetchone()
    new = [line for line_id, line in lines.items() if line_id not in old]
    connection.executemany(
        "INSERT INTO agent_job_messages (job_id, seq, id, type, content, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(known, seq, *line) for seq, line in enumerate(new, last + 1)],
    )


def read_messages(
    connection: sqlite3.Connection, job_id: str, after: int, limit: int
) -> list[Message]:
    """Return up to `limit` lines with `seq` > `after`, in order."""
    condition = "job_id = ? AND seq > ? ORDER BY seq LIMIT ?"
    return _lines(connection, condition, canonical_id(job_id), bounded(after), bounded(limit))


def messages_by_id(
    connection: sqlite3.Connection, job_id: str, ids: Sequence[str]
) -> list[Message]:
    """Return those of the job's lines that have these ids, ordered by `seq`."""
    wanted = [line_id for line_id in map(canonical_id, ids) if line_id is not None]
    condition = "job_id = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY seq"
    return _lines(connection, condition, canonical_id(job_id), json_list(wanted))


def _check_lease(connection: sqlite3.Connection, known: str, lease: int | None) -> None:
    (present,) = connection.execute(
        "SELECT lease FROM agent_jobs WHERE id = ?", (known,)
    ).fetchone()
    if lease is not None and present != lease:
        raise LeaseLost(
            f"The job {known} is at lease {present}, not {lease} any more; stop working on it."
        )


def _lines(connection: sqlite3.Connection, condition: str, *parameters: object) -> list[Message]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM agent_job_messages WHERE {condition}", parameters
    )
    return [message_from_row(named(MESSAGE_COLUMNS, values)) for values in rows]
