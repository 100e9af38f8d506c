"""Require the API secret.

This is plain ASGI middleware: the secret is checked before anything is read or routed.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.errors import json_error
from api.http.wrong_secrets import WrongSecrets

OPEN_PATH = "/health"


class RequireSecret:
    """Answers 401 unless the request has the API secret. Only `/health` needs none.

    Clients send `Authorization: Bearer <secret>`. For the documentation in a browser,
    `browser_paths` also accept HTTP Basic with the secret as the password. Other paths do not: a
    browser sends a Basic password with every request to this server, also for pages of other sites.
    """

    def __init__(self, app: ASGIApp, secret: str, browser_paths: frozenset[str]) -> None:
        self._app = app
        self._secret = secret.encode()
        self._browser_paths = browser_paths
        self._wrong_secrets = WrongSecrets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["path"] == OPEN_PATH:
            await self._app(scope, receive, send)
            return
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, secret = _credentials(values[0]) if len(values) == 1 else (b"", b"")
        is_correct = bool(secret) and hmac.compare_digest(secret, self._secret)
        is_browser_path = scope["path"] in self._browser_paths
        if is_correct and (scheme == b"bearer" or is_browser_path):
            await self._app(scope, receive, send)
            return
        if values and not is_correct:
            client = scope["client"]
            await self._wrong_secrets.wait(client[0] if client else "an unknown address")
        response = json_error(
            401,
            "Unauthorized: send the header `Authorization: Bearer <AGENT_API_SECRET>`.",
            {"WWW-Authenticate": "Basic" if is_browser_path else "Bearer"},
        )
        await response(scope, receive, send)


def _credentials(header: bytes) -> tuple[bytes, bytes]:
    """Return the scheme in lower case, and the secret or nothing."""
    scheme, _, credentials = header.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return b"bearer", credentials.strip()
        case b"basic":
            try:
                decoded = base64.b64decode(credentials.strip(), validate=True)
            except binascii.Error:
                return b"basic", b""
            return b"basic", decoded.partition(b":")[2]
        case _:
            return b"", b""
