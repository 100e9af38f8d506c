"""The first thing that looks at a request: the API secret, then the size of its body.

Plain ASGI, so that nothing is read or routed before the secret is checked.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import json_error
from domain.errors import TooLarge

OPEN_PATH = "/health"
BROWSER_PATHS = frozenset({"/docs", "/openapi.json"})
MAX_BODY_BYTES = 8 * 1024 * 1024
"""A prompt of 1 MiB written wholly in JSON's six-byte escapes, and the rest of the request."""


class RequireSecret:
    """Answers 401 unless the request carries the API secret; `GET /health` alone is open.

    The secret comes as `Authorization: Bearer <secret>`. HTTP Basic with the secret as password is
    accepted too, so that a browser can show the documentation.
    """

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] == OPEN_PATH or self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        scheme = "Basic" if scope["path"] in BROWSER_PATHS else "Bearer"
        response = json_error(
            401,
            "Unauthorized: send the header `Authorization: Bearer <AGENT_API_SECRET>`.",
            {"WWW-Authenticate": scheme},
        )
        await response(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        values = [value for name, value in headers if name == b"authorization"]
        given = _secret_in(values[0]) if len(values) == 1 else b""
        return bool(given) and hmac.compare_digest(given, self._secret)


def _secret_in(header: bytes) -> bytes:
    scheme, _, credentials = header.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return credentials.strip()
        case b"basic":
            try:
                decoded = base64.b64decode(credentials.strip(), validate=True)
            except binascii.Error:
                return b""
            return decoded.partition(b":")[2]
        case _:
            return b""


class LimitBody:
    """Answers 413 to a body over `MAX_BODY_BYTES`, declared or not, without keeping it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                raise TooLarge(_TOO_LARGE)
            return message

        if _declared_length(scope) > MAX_BODY_BYTES:
            await json_error(413, _TOO_LARGE)(scope, receive, send)
            return
        await self._app(scope, limited, send)


_TOO_LARGE = f"The request body is over {MAX_BODY_BYTES} bytes. Send a shorter one."


def _declared_length(scope: Scope) -> int:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0
