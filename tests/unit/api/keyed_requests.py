"""Requests with an `Idempotency-Key`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from domain.errors import DependencyUnavailable
from domain.keyed_requests import KeyedRequest
from tests.unit.api.calls import BEARER, Api

KEY = "3f6f5a0b nightly #7"
REUSED = {
    "error": "The Idempotency-Key was used with another request body. Send the same body, or a "
    "new key."
}
OUTAGE = DependencyUnavailable("The store did not answer. Try again.", "store")


async def post(
    api: Api, path: str, body: Any = None, key: str = KEY, **options: Any
) -> httpx.Response:
    headers = {**BEARER, "Idempotency-Key": key}
    return await api.call("POST", path, body, headers=headers, **options)


def is_replay(answer: httpx.Response) -> bool:
    replay = answer.headers.get("Idempotent-Replay")
    assert replay in {None, "true"}
    return replay is not None


def outcome(answer: httpx.Response) -> tuple[int, bytes]:
    return answer.status_code, answer.content


async def new_job(api: Api, **more: Any) -> dict[str, Any]:
    """The body of a request for a code job."""
    return {"clientId": await api.add_owner(), "prompt": "x", "branchName": "feature/x", **more}


async def jobs(api: Api) -> list[str]:
    return [job["id"] for job in (await api.get("/jobs"))["jobs"]]


def counted_claims(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[KeyedRequest]:
    """Record the claims of keys from now on."""
    claims: list[KeyedRequest] = []
    claim = api.store.claim_key

    async def watched(request: KeyedRequest) -> KeyedRequest:
        claims.append(request)
        return await claim(request)

    monkeypatch.setattr(api.store, "claim_key", watched)
    return claims


async def reached(things: list[Any], count: int) -> bool:
    return len(things) >= count
