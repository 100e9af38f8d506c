"""Faults on demand, and the request log of the fake GitHub."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakes.server import transport_of

_LOG_LENGTH = 10_000


class LoggedRequest(NamedTuple):
    """One request, logged when its answer starts. `status` is None for a dropped connection."""

    method: str
    path: str
    status: int | None


@dataclass
class Fault:
    """A fault for the next matching requests.

    Args:
        pattern: a shell pattern for the name of the operation, or for the path.
        status: the HTTP status of the answer; None drops the connection.
        times: number of requests that it applies to.
        headers: additional headers of the answer.
        body: the answer, with a mapping sent as JSON; by default GitHub's JSON for the status.
        after: whether to perform the request before answering with the fault.
        delay: seconds to wait first.
        answers: False performs the request normally after the delay.
    """

    pattern: str
    status: int | None = 502
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | Mapping[str, Any] | None = None
    after: bool = False
    delay: float = 0.0
    answers: bool = True

    def matches(self, operation: str | None, path: str) -> bool:
        """Return whether the fault applies to this request."""
        return fnmatchcase(operation or "", self.pattern) or fnmatchcase(path, self.pattern)

    def response(self, status: int) -> Response:
        """Return the answer that replaces the normal one."""
        if isinstance(self.body, str):
            return Response(self.body, status, dict(self.headers), "text/plain")
        body = self.body or {"message": HTTPStatus(status).phrase, "status": str(status)}
        return Response(
            json.dumps(body), status, dict(self.headers), "application/json; charset=utf-8"
        )


def primary_rate_limit(pattern: str, seconds: int, times: int) -> Fault:
    """Return GitHub's answer to a token that has used up its hourly requests."""
    headers = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-used": "5000",
        "x-ratelimit-reset": str(int(time.time()) + seconds),
        "x-ratelimit-resource": "core",
    }
    body = {
        "message": "API rate limit exceeded for user ID 1.",
        "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api",
        "status": "403",
    }
    return Fault(pattern, 403, times, headers, body)


def secondary_rate_limit(pattern: str, seconds: int, times: int) -> Fault:
    """Return GitHub's answer to a token that sends too many requests at once."""
    body = {
        "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you "
        "try again.",
        "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"
        "#about-secondary-rate-limits",
        "status": "403",
    }
    return Fault(pattern, 403, times, {"retry-after": str(seconds)}, body)


class Traffic:
    """The ASGI middleware in front of everything the fake GitHub serves.

    Args:
        app: the app for requests without a fault.
        operation_of: returns the name of a request, for patterns.
    """

    def __init__(self, app: ASGIApp, operation_of: Callable[[Scope], str | None]) -> None:
        self._app = app
        self._operation_of = operation_of
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._log: deque[LoggedRequest] = deque(maxlen=_LOG_LENGTH)

    def add(self, fault: Fault) -> None:
        """Append a fault to the pending ones."""
        with self._lock:
            self._faults.append(fault)

    def pending(self) -> list[Fault]:
        """Return the faults that still apply to further requests."""
        with self._lock:
            return list(self._faults)

    def clear(self) -> None:
        """Remove all pending faults."""
        with self._lock:
            self._faults.clear()

    def log(self) -> list[LoggedRequest]:
        """Return the latest 10,000 answered requests, oldest first."""
        return list(self._log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with the next matching fault, otherwise with the app."""
        fault = self._next_fault(self._operation_of(scope), scope["path"])

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._record(scope, message["status"])
                request_id = secrets.token_hex(8).upper().encode()
                message["headers"] = [*message["headers"], (b"x-github-request-id", request_id)]
            await send(message)

        await self._answer(fault, scope, receive, record)

    def _record(self, scope: Scope, status: int | None) -> None:
        self._log.append(LoggedRequest(scope["method"], scope["path"], status))

    def _next_fault(self, operation: str | None, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.matches(operation, path):
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                    return fault
        return None

    async def _answer(
        self, fault: Fault | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if fault is None:
            await self._app(scope, receive, send)
            return
        if fault.after:
            await self._app(scope, receive, _discard)
        await asyncio.sleep(fault.delay)
        if not fault.answers:
            await self._app(scope, receive, send)
        elif fault.status is None:
            self._record(scope, None)
            await _drop(scope, receive)
        else:
            await fault.response(fault.status)(scope, receive, send)


async def _discard(message: Message) -> None:
    """Drop an answer that the client must not see."""


async def _drop(scope: Scope, receive: Receive) -> None:
    transport_of(scope).close()
    while (await receive())["type"] != "http.disconnect":
        pass
