"""Faulty responses: slow, truncated, dropped, or never sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fakes.anthropic.event_stream import encoded
from fakes.anthropic.steps import Step
from fakes.server import transport_of


class Dropped(Response):
    """Close the connection without sending a byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cut the connection."""
        await _cut(scope, receive)


class Hung(Response):
    """Keep the connection open without an answer until the client disconnects."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the connection to end."""
        await receive()


class Late(Response):
    """Send another response after a pause."""

    def __init__(self, response: Response, seconds: float) -> None:
        self._response = response
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer after the pause, unless the client has disconnected."""
        if await _still_connected(receive, self._seconds):
            await self._response(scope, receive, send)


class EventStream(Response):
    """A message as server-sent events, with the pauses and the fault of the step."""

    media_type = "text/event-stream"

    def __init__(
        self, events: Iterator[dict[str, Any]], step: Step, headers: Mapping[str, str]
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._events = events
        self._pause = step.get("chunk_delay", 0.0)
        self._cut = step.get("drop") == "mid"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the end, the scripted cut, or the client's disconnect."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        for event in self._events:
            delta = event["type"] == "content_block_delta"
            if delta and self._pause and not await _still_connected(receive, self._pause):
                return
            await send({"type": "http.response.body", "body": encoded(event), "more_body": True})
            if delta and self._cut:
                await _cut(scope, receive)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cut(scope: Scope, receive: Receive) -> None:
    transport_of(scope).abort()
    # Wait for the disconnect: uvicorn answers 500 if an app returns without a response.
    await receive()


async def _still_connected(receive: Receive, seconds: float) -> bool:
    try:
        await asyncio.wait_for(receive(), seconds)
    except TimeoutError:
        return True
    return False
