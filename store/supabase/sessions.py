"""The transcripts from which Claude's CLI resumes a conversation, kept compressed in base64.

As text, because that is what JSON carries; Postgres's `bytea` would travel in hexadecimal.
"""

from __future__ import annotations

import asyncio
import base64
import zlib

from postgrest import ReturnMethod
from typing_extensions import override

from domain.messages import sanitize_text
from domain.timestamps import utc_now
from store.codec.values import canonical_id, time_text
from store.protocol import SessionStore
from store.supabase.connection import SupabaseAggregate
from store.supabase.errors import MISSING_REFERENCE, Refusal, translated
from store.supabase.jobs import existing_id, no_such_job

_TABLE = "agent_job_sessions"
_COMPRESSION_LEVEL = 1
"""A JSON transcript shrinks about as much as at higher levels, in a fraction of their time."""


class SupabaseSessions(SupabaseAggregate, SessionStore):
    """The sessions of jobs."""

    @override
    async def save_session(self, job_id: str, session_id: str, transcript: bytes) -> None:
        row = {
            "job_id": existing_id(job_id),
            "session_id": sanitize_text(session_id),
            "updated_at": time_text(utc_now()),
            "transcript": await asyncio.to_thread(_packed, transcript),
        }
        query = self._connection.table(_TABLE).upsert(
            row, on_conflict="job_id", returning=ReturnMethod.minimal
        )
        try:
            await self._connection.attempt(query)
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise no_such_job(job_id) from refused
            raise translated(refused) from refused

    @override
    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        known = canonical_id(job_id)
        if known is None:
            return None
        query = (
            self._connection.table(_TABLE).select("session_id", "transcript").eq("job_id", known)
        )
        rows = await self._connection.rows(query)
        if not rows:
            return None
        return rows[0]["session_id"], await asyncio.to_thread(_unpacked, rows[0]["transcript"])


def _packed(transcript: bytes) -> str:
    return base64.b64encode(zlib.compress(transcript, _COMPRESSION_LEVEL)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
