"""The transcripts from which Claude's CLI resumes a conversation, kept compressed."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib

from typing_extensions import override

from domain.messages import sanitize_text
from domain.timestamps import utc_now
from store.codec.values import canonical_id, time_text
from store.protocol import SessionStore
from store.sqlite.operations import SqliteAggregate, reading, writing
from store.sqlite.statements import existing_job

COMPRESSION_LEVEL = 1
"""A JSON transcript shrinks about as much as at higher levels, in a fraction of their time."""


class SqliteSessions(SqliteAggregate, SessionStore):
    """The sessions of jobs."""

    @override
    async def save_session(self, job_id: str, session_id: str, transcript: bytes) -> None:
        compressed = await asyncio.to_thread(zlib.compress, transcript, COMPRESSION_LEVEL)
        await self._save_compressed(job_id, session_id, compressed)

    @writing
    def _save_compressed(
        self, connection: sqlite3.Connection, job_id: str, session_id: str, compressed: bytes
    ) -> None:
        known = existing_job(connection, job_id)
        connection.execute(
            "INSERT INTO agent_job_sessions (job_id, session_id, updated_at, transcript) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET "
            "session_id = excluded.session_id, updated_at = excluded.updated_at, "
            "transcript = excluded.transcript",
            (known, sanitize_text(session_id), time_text(utc_now()), compressed),
        )

    @override
    @reading
    def load_session(self, connection: sqlite3.Connection, job_id: str) -> tuple[str, bytes] | None:
        found = connection.execute(
            "SELECT session_id, transcript FROM agent_job_sessions WHERE job_id = ?",
            (canonical_id(job_id),),
        ).fetchone()
        return None if found is None else (found[0], zlib.decompress(found[1]))
