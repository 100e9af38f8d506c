"""The message logs of jobs, the messages that wait for a job, and the session files.

Session files are stored as base64, because Postgres's `bytea` would be sent in hexadecimal.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Sequence
from typing import Any

from postgrest import AsyncSelectRequestBuilder, ReturnMethod
from typing_extensions import override

from domain.errors import LeaseLost
from domain.messages import Message, NewMessage, sanitize_text
from domain.timestamps import utc_now
from store.codec.rows import MESSAGE_COLUMNS, Row, message_from_row
from store.codec.values import canonical_id, required_id, time_text
from store.protocol import MessageStore, SessionStore
from store.supabase.connection import IDS_IN_ADDRESS, SupabaseAggregate, SupabaseConnection
from store.supabase.errors import MISSING_REFERENCE, Refusal, translated
from store.supabase.jobs import existing_id, no_such_job

_MESSAGES = "agent_job_messages"
_SESSIONS = "agent_job_sessions"

LARGEST_SEQ = 2**53 - 1
"""The largest integer that JSON parsers keep exactly."""

_COMPRESSION_LEVEL = 1
"""Higher levels take much longer and compress session files only slightly better."""


class SupabaseMessages(SupabaseAggregate, MessageStore, SessionStore):
    """The message logs of jobs, their inboxes and session files."""

    @override
    async def append_messages(
        self, job_id: str, messages: Sequence[NewMessage], lease: int | None = None
    ) -> None:
        lines: dict[str, NewMessage] = {}
        for message in messages:
            lines.setdefault(required_id(message.id, "message id"), message)
        canonical = existing_id(job_id)
        batch = {
            "job": canonical,
            "held_lease": lease,
            "ids": list(lines),
            "types": [line.type.value for line in lines.values()],
            "contents": [sanitize_text(line.content) for line in lines.values()],
            "times": [time_text(line.created_at) for line in lines.values()],
        }
        present: int | None = await self._connection.call("orchestrator_append_lines", batch)
        if present is None:
            raise no_such_job(job_id)
        if lease is not None and present != lease:
            raise LeaseLost(
                f"The job {canonical} has lease {present}, not {lease}. Stop working on it.",
                present,
            )

    @override
    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        canonical = canonical_id(job_id)
        if canonical is None:
            return []

        def page(read: list[Row]) -> AsyncSelectRequestBuilder:
            last = read[-1]["seq"] if read else min(max(after, 0), LARGEST_SEQ)
            return _of_job(self._connection, canonical).gt("seq", last).order("seq")

        return [message_from_row(row) for row in await self._connection.pages(page, limit)]

    @override
    async def messages_by_id(self, job_id: str, ids: Sequence[str]) -> list[Message]:
        job = canonical_id(job_id)
        wanted = sorted(
            {canonical for canonical in map(canonical_id, ids) if canonical is not None}
        )
        if job is None:
            return []
        rows: list[Row] = []
        for part in range(0, len(wanted), IDS_IN_ADDRESS):
            some = wanted[part : part + IDS_IN_ADDRESS]
            rows += await self._connection.rows(_of_job(self._connection, job).in_("id", some))
        lines = [message_from_row(row) for row in rows]
        return sorted(lines, key=lambda line: line.seq)

    @override
    async def put_in_inbox(self, job_id: str, message: NewMessage) -> None:
        line: dict[str, Any] = {
            "job": existing_id(job_id),
            "message": required_id(message.id, "message id"),
            "type": message.type.value,
            "content": sanitize_text(message.content),
            "sent_at": time_text(message.created_at),
        }
        if not await self._connection.call("orchestrator_put_in_inbox", line):
            raise no_such_job(job_id)

    @override
    async def take_from_inbox(self, job_id: str, message_id: str) -> bool:
        job, message = canonical_id(job_id), canonical_id(message_id)
        if job is None or message is None:
            return False
        names = {"job": job, "message": message}
        return bool(await self._connection.call("orchestrator_take_from_inbox", names))

    @override
    async def save_session(self, job_id: str, session_id: str, session_file: bytes) -> None:
        row = {
            "job_id": existing_id(job_id),
            "session_id": sanitize_text(session_id),
            "updated_at": time_text(utc_now()),
            "transcript": await asyncio.to_thread(_packed, session_file),
        }
        query = self._connection.table(_SESSIONS).upsert(
            row, on_conflict="job_id", returning=ReturnMethod.minimal
        )
        try:
            await self._connection.send(query)
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise no_such_job(job_id) from refused
            raise translated(refused) from refused

    @override
    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        canonical = canonical_id(job_id)
        if canonical is None:
            return None
        query = (
            self._connection.table(_SESSIONS)
            .select("session_id", "transcript")
            .eq("job_id", canonical)
        )
        rows = await self._connection.rows(query)
        if not rows:
            return None
        return rows[0]["session_id"], await asyncio.to_thread(_unpacked, rows[0]["transcript"])


def _of_job(connection: SupabaseConnection, job: str) -> AsyncSelectRequestBuilder:
    return connection.table(_MESSAGES).select(*MESSAGE_COLUMNS).eq("job_id", job)


def _packed(session_file: bytes) -> str:
    return base64.b64encode(zlib.compress(session_file, _COMPRESSION_LEVEL)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
