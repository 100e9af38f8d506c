"""The keys by which a repeated request is known, and what was answered to it."""

from __future__ import annotations

from datetime import datetime

from postgrest import ReturnMethod

from domain.errors import NotFound
from domain.keyed_requests import KeyedRequest
from domain.messages import storable
from store.row_values import (
    ColumnValue,
    canonical_id,
    column_value,
    time_text,
    unchanged_text,
)
from store.rows import claim_to_row, keyed_request_from_row
from store.supabase_connection import SupabaseConnection


async def claim_key(connection: SupabaseConnection, request: KeyedRequest) -> KeyedRequest:
    """Insert what a key stands for, or leave it; return what it stands for now.

    Raises:
        InvalidRequest: the resource's id is no UUID.
    """
    query = connection.function("orchestrator_claim_key", claim_to_row(request))
    return keyed_request_from_row((await connection.rows(query))[0])


async def answer_key(
    connection: SupabaseConnection, scope: str, key: str, status: int, answer: str
) -> KeyedRequest:
    """Set the answer of a key unless it has one; return what the key stands for now.

    Raises:
        InvalidRequest: the answer cannot be kept as it is.
        NotFound: the key was not claimed, or was released.
    """
    answered = {
        "scope": column_value(scope),
        "key": column_value(key),
        "status": status,
        "answer": unchanged_text(answer, "answer"),
    }
    rows = await connection.rows(connection.function("orchestrator_answer_key", answered))
    if not rows:
        raise NotFound(
            f"The idempotency key {storable(key)[:80]!r} is not claimed. Send the request again."
        )
    return keyed_request_from_row(rows[0])


async def share_key(connection: SupabaseConnection, scope: str, key: str, resource_id: str) -> bool:
    """Share a claim that has no answer, so that it is not released; return whether it is there."""
    claim = _claim(scope, key, resource_id)
    return bool(await connection.call("orchestrator_share_key", claim))


async def release_key(
    connection: SupabaseConnection, scope: str, key: str, resource_id: str
) -> None:
    """Forget a claim that has no answer and is not shared."""
    await connection.call("orchestrator_release_key", _claim(scope, key, resource_id))


async def forget_keys(connection: SupabaseConnection, claimed_before: datetime) -> None:
    """Forget the keys claimed before then."""
    query = connection.table("agent_idempotency_keys").delete(returning=ReturnMethod.minimal)
    await connection.rows(query.lt("created_at", time_text(claimed_before)))


def _claim(scope: str, key: str, resource_id: str) -> dict[str, ColumnValue]:
    return {
        "scope": column_value(scope),
        "key": column_value(key),
        "resource_id": canonical_id(resource_id),
    }
