"""Idempotency keys: the keys of clients' requests, and the responses."""

from __future__ import annotations

from datetime import datetime

from postgrest import ReturnMethod
from typing_extensions import override

from domain.errors import NotFound
from domain.keyed_requests import KeyedRequest
from domain.messages import sanitize_text
from store.codec.rows import claim_to_row, keyed_request_from_row
from store.codec.values import (
    ColumnValue,
    canonical_id,
    column_value,
    require_storable,
    time_text,
)
from store.protocol import KeyStore
from store.supabase.connection import SupabaseAggregate


class SupabaseIdempotencyKeys(SupabaseAggregate, KeyStore):
    """Idempotency keys of clients' requests."""

    @override
    async def claim_key(self, request: KeyedRequest) -> KeyedRequest:
        query = self._connection.function("orchestrator_claim_key", claim_to_row(request))
        return keyed_request_from_row((await self._connection.rows(query))[0])

    @override
    async def answer_key(self, scope: str, key: str, status: int, answer: str) -> KeyedRequest:
        answered = {
            "scope": column_value(scope),
            "key": column_value(key),
            "status": status,
            "answer": require_storable(answer, "answer"),
        }
        rows = await self._connection.rows(
            self._connection.function("orchestrator_answer_key", answered)
        )
        if not rows:
            raise NotFound(
                f"The idempotency key {sanitize_text(key)[:80]!r} is not claimed. Send the request "
                "again."
            )
        return keyed_request_from_row(rows[0])

    @override
    async def share_key(self, scope: str, key: str, resource_id: str) -> bool:
        claim = _claim(scope, key, resource_id)
        return bool(await self._connection.call("orchestrator_share_key", claim))

    @override
    async def release_key(self, scope: str, key: str, resource_id: str) -> None:
        await self._connection.call("orchestrator_release_key", _claim(scope, key, resource_id))

    @override
    async def forget_keys(self, older_than: datetime) -> None:
        query = self._connection.table("agent_idempotency_keys").delete(
            returning=ReturnMethod.minimal
        )
        await self._connection.rows(query.lt("created_at", time_text(older_than)))


def _claim(scope: str, key: str, resource_id: str) -> dict[str, ColumnValue]:
    return {
        "scope": column_value(scope),
        "key": column_value(key),
        "resource_id": canonical_id(resource_id),
    }
