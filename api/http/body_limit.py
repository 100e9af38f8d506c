"""Limit the size of request bodies."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import json_error
from domain.errors import TooLarge

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Enough for a prompt of 1 MiB in JSON's six-byte escapes (6 MiB), and the other fields."""


class LimitBody:
    """Answers 413 to a body over `MAX_BODY_BYTES`, with or without a Content-Length."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
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
