"""`Idempotency-Key`: a repeated request has no second effect and gets the first answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import AfterValidator, BaseModel
from starlette.responses import Response

from api.dependencies import Injected
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
REPLAY_HEADER = "Idempotent-Replay"
MAX_KEY_CHARACTERS = 255

TAKEN_OVER_AFTER = timedelta(seconds=5)
"""A request is answered in well under a second. After this time it was probably cut off, and the
next request with its key does the work."""

POLL_INTERVAL = timedelta(milliseconds=100)

_PRINTABLE = re.compile(r"[\x20-\x7e]+")


class KeyClaim:
    """The right of one request to create the resource `resource_id` and to answer.

    With a key, an earlier request may have created the resource already, and a concurrent one may
    be creating it. Work under a keyed claim is therefore idempotent.
    """

    def __init__(self, store: Store, request: KeyedRequest | None) -> None:
        self._store = store
        self._request = request
        self._response: Response | None = None
        self.is_keyed = request is not None
        self.resource_id = request.resource_id if request else new_id()
        if request and request.answer is not None:
            self._response = _stored_response(request, {REPLAY_HEADER: "true"})

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer, which may be that of an earlier request with the key."""
        return self._response is not None

    @property
    def response(self) -> Response:
        """The answer. It exists once `is_answered`."""
        assert self._response is not None
        return self._response

    async def answer(self, status: int, body: BaseModel) -> None:
        """Answer the request. With a key, store the answer, unless another was stored first."""
        text = body.model_dump_json()
        if self._request is None:
            self._response = Response(text, status, media_type="application/json")
            return
        scope, key = self._request.scope, self._request.key
        try:
            stored = await self._store.answer_key(scope, key, status, text)
        except NotFound:
            # The key has expired since. That changes nothing about the answer.
            stored = replace(self._request, status=status, answer=text)
        self._response = _stored_response(stored)


class IdempotentRequest:
    """A request whose effect happens once for each key of its method and path."""

    def __init__(self, store: Store, scope: str, key: str | None) -> None:
        self._store = store
        self._scope = scope
        self._key = key

    @asynccontextmanager
    async def claim(self, body: BaseModel | None) -> AsyncIterator[KeyClaim]:
        """Hold the claim of this request while the caller does the work and answers.

        An error that left no effect releases the key, so that the corrected request can use it.
        After other errors the key stays, so that the repeated request finds the effect.

        Raises:
            KeyReused: the key belongs to a request with another body.
        """
        if self._key is None:
            yield KeyClaim(self._store, None)
            return
        request = await self._claimed(self._key, _fingerprint(body))
        try:
            yield KeyClaim(self._store, request)
        except OrchestratorError as error:
            if _had_no_effect(error):
                await self._store.release_key(request.scope, request.key, request.resource_id)
            raise

    async def _claimed(self, key: str, fingerprint: str) -> KeyedRequest:
        """Return the request of the key, once it is answered or this request may work on it."""
        own = KeyedRequest(self._scope, key, fingerprint, new_id(), utc_now())
        while True:
            first = await self._store.claim_key(own)
            if first.fingerprint != fingerprint:
                raise KeyReused(
                    f"The {HEADER} was used with another request body. Send the same body, or a "
                    "new key."
                )
            if first.resource_id == own.resource_id or first.answer is not None:
                return first
            is_cut_off = utc_now() - min(first.created_at, own.created_at) > TAKEN_OVER_AFTER
            if is_cut_off and await self._store.share_key(self._scope, key, first.resource_id):
                return first
            await asyncio.sleep(POLL_INTERVAL.total_seconds())


def _fingerprint(body: BaseModel | None) -> str:
    fields = body.model_dump(exclude_unset=True) if body else {}
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _stored_response(request: KeyedRequest, headers: dict[str, str] | None = None) -> Response:
    assert request.status is not None
    return Response(request.answer, request.status, headers, media_type="application/json")


def _had_no_effect(error: OrchestratorError) -> bool:
    match error:
        case OutcomeUnknown():
            return False
        # A write of the store may have happened although its answer was lost.
        case DependencyFailed(system="store") | DependencyUnavailable(system="store"):
            return False
        case _:
            return True


def _validate_key(key: str) -> str:
    if len(key) > MAX_KEY_CHARACTERS or not _PRINTABLE.fullmatch(key):
        raise ValueError(f"must be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters")
    return key


Key = Annotated[
    Annotated[str, AfterValidator(_validate_key)] | None,
    Header(
        alias=HEADER,
        description="Makes the request idempotent: sent again with the same key and body, it has "
        "no second effect and gets the first answer.",
    ),
]


def _idempotent_request(
    request: Request, dependencies: Injected, key: Key = None
) -> IdempotentRequest:
    if len(request.headers.getlist(HEADER)) > 1:
        raise InvalidRequest(f"The request has more than one {HEADER} header. Send one.")
    scope = f"{request.method} {request.scope['path'].lower()}"
    return IdempotentRequest(dependencies.store, scope, key)


Idempotency = Annotated[IdempotentRequest, Depends(_idempotent_request)]
