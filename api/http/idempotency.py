"""`Idempotency-Key`: a request that is made again does nothing twice and gets the first answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import AfterValidator, BaseModel
from starlette.responses import JSONResponse, Response

from api.dependencies import Parts
from api.jobs.views import Json
from domain.errors import (
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    KeyReused,
    NotFound,
    OrchestratorError,
    OutcomeUnknown,
)
from domain.keyed_requests import KeyedRequest
from domain.names.ids import new_id
from domain.timestamps import utc_now
from store.protocol import Store

HEADER = "Idempotency-Key"
MAX_KEY_CHARACTERS = 255

TAKEN_OVER_AFTER = timedelta(seconds=5)
"""A request is answered in well under a second. One that has no answer by then was cut off, or so
it seems, and the next of its key does its work."""

POLLED_EVERY = timedelta(milliseconds=100)

_PRINTABLE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """What a request is to make: the thing of this id.

    With a key, another request may have made it already, or be making it.
    """

    resource_id: str
    is_keyed: bool


Work = Callable[[KeyClaim], Awaitable[Json]]
"""Makes the thing of a claim and returns the answer's body; with a key, it can be repeated."""


class IdempotentRequest:
    """Answers one request, whose work is done once for each key of its method and path."""

    def __init__(self, store: Store, scope: str, key: str | None) -> None:
        self._store = store
        self._scope = scope
        self._key = key

    async def answer(self, status: int, body: BaseModel | None, work: Work) -> Response:
        """Return the answer to a request with this `body`, doing its `work` if nobody has yet.

        A refusal releases the key, so that the corrected request can be made with it. What may
        have been done all the same, or may be done yet by a request that shares the claim, keeps
        it, so that the repeat finds it.

        Raises:
            KeyReused: the key stands for a request with another body.
            OrchestratorError: what the work raises.
        """
        if self._key is None:
            return JSONResponse(await work(KeyClaim(new_id(), is_keyed=False)), status)
        known = await self._claimed(self._key, _fingerprint(body))
        if known.answer is not None:
            return _answered(known, {"Idempotent-Replay": "true"})
        try:
            done = await work(KeyClaim(known.resource_id, is_keyed=True))
        except OrchestratorError as error:
            if _did_nothing(error):
                await self._store.release_key(known.scope, known.key, known.resource_id)
            raise
        return _answered(await self._settled(known, status, done))

    async def _claimed(self, key: str, fingerprint: str) -> KeyedRequest:
        """Return what the key stands for, once it has an answer or is this request's to work on."""
        own = KeyedRequest(self._scope, key, fingerprint, new_id(), utc_now())
        while True:
            known = await self._store.claim_key(own)
            if known.fingerprint != fingerprint:
                raise KeyReused(
                    f"The {HEADER} was used with another request body. Send the same body, or a "
                    "new key."
                )
            if known.resource_id == own.resource_id or known.answer is not None:
                return known
            is_cut_off = utc_now() - min(known.created_at, own.created_at) > TAKEN_OVER_AFTER
            if is_cut_off and await self._store.share_key(self._scope, key, known.resource_id):
                return known
            await asyncio.sleep(POLLED_EVERY.total_seconds())

    async def _settled(self, known: KeyedRequest, status: int, done: Json) -> KeyedRequest:
        """Return the key with its answer: the first that was given, whoever gave it."""
        text = bytes(JSONResponse(done).body).decode()
        try:
            return await self._store.answer_key(known.scope, known.key, status, text)
        except NotFound:
            # Forgotten meanwhile: it is the answer all the same.
            return replace(known, status=status, answer=text)


def _fingerprint(body: BaseModel | None) -> str:
    fields = body.model_dump(exclude_unset=True) if body else {}
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _answered(known: KeyedRequest, headers: dict[str, str] | None = None) -> Response:
    assert known.status is not None
    return Response(known.answer, known.status, headers, media_type="application/json")


def _did_nothing(error: OrchestratorError) -> bool:
    match error:
        case OutcomeUnknown():
            return False
        case DependencyFailed(system="store") | DependencyUnavailable(system="store"):
            return False
        case _:
            return True


def _checked_key(key: str) -> str:
    if len(key) > MAX_KEY_CHARACTERS or not _PRINTABLE.fullmatch(key):
        raise ValueError(f"must be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters")
    return key


Key = Annotated[
    Annotated[str, AfterValidator(_checked_key)] | None,
    Header(
        alias=HEADER,
        description="Makes the request repeatable: with the same key and body it is done once.",
    ),
]


def _once(request: Request, parts: Parts, key: Key = None) -> IdempotentRequest:
    if len(request.headers.getlist(HEADER)) > 1:
        raise InvalidRequest(f"{HEADER} is there twice. Send one.")
    scope = f"{request.method} {request.scope['path'].lower()}"
    return IdempotentRequest(parts.store, scope, key)


OnceOnly = Annotated[IdempotentRequest, Depends(_once)]
