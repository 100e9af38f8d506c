"""Requests with an Idempotency-Key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """The request of a client with an Idempotency-Key.

    `scope` is the method and path. `scope` and `key` together have at most 2,000 bytes, the limit
    of an index in Postgres. Requests with the same `fingerprint` are the same request.
    `resource_id` (a UUID) is the id of the resource that the request creates. `answer` is the JSON
    text of the first response and `status` its HTTP status. Both are None until there is one.
    """

    scope: str
    key: str
    fingerprint: str
    resource_id: str
    created_at: datetime
    status: int | None = None
    answer: str | None = None
