"""Asks for the API secret.

Plain ASGI, so that nothing is read or routed before the secret is checked.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.errors import json_error
from api.http.wrong_secrets import WrongSecrets

OPEN_PATH = "/health"
BROWSER_PATHS = frozenset({"/docs", "/openapi.json"})


class RequireSecret:
    """Answers 401 unless the request carries the API secret; `GET /health` alone is open.

    The secret comes as `Authorization: Bearer <secret>`. HTTP Basic with the secret as password is
    accepted too, so that a browser can show the documentation.
    """

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()
        self._wrong_secrets = WrongSecrets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["path"] == OPEN_PATH:
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        secret = _secret_in(given[0]) if len(given) == 1 else b""
        is_right = bool(secret) and hmac.compare_digest(secret, self._secret)
        if is_right:
            await self._app(scope, receive, send)
            return
        if given:
            client = scope["client"]
            await self._wrong_secrets.wait(client[0] if client else "an unknown address")
        response = json_error(
            401,
            "Unauthorized: send the header `Authorization: Bearer <AGENT_API_SECRET>`.",
            {"WWW-Authenticate": "Basic" if scope["path"] in BROWSER_PATHS else "Bearer"},
        )
        await response(scope, receive, send)


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
