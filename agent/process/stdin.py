"""What is written to Claude's standard input: user messages as stream-JSON."""

from __future__ import annotations

import asyncio
import json
from typing import cast

_HEADING = "Message from the user:\n\n"


def user_line(message_id: str, text: str) -> bytes:
    """Return the line that carries one user message."""
    message = {"role": "user", "content": _as_prose(text)}
    line = json.dumps({"type": "user", "message": message, "uuid": message_id})
    return line.encode() + b"\n"


def _as_prose(text: str) -> str:
    """Put a heading before text that starts with a slash.

    The CLI would take it for one of its own commands and never show it to the model (measured).
    """
    return _HEADING + text if text.lstrip().startswith("/") else text


class InputPipe(asyncio.Protocol):
    """The writing end of the pipe, with backpressure."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is connected."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._writable.set()

    def pause_writing(self) -> None:
        """The buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The buffer has room again."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The reader is gone, or everything was written after `close`."""
        self._transport = None
        self._writable.set()

    async def write(self, line: bytes) -> bool:
        """Write a whole line, wait while the buffer is full, and tell whether there is a reader.

        A line is written whole or not at all, also when the caller is cancelled.
        """
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(line)
        await self._writable.wait()
        return self._transport is not None

    def close(self) -> None:
        """End the stream after what was written. Repeatable."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Let go of the pipe and of what was not written yet. Repeatable."""
        if self._transport is not None:
            self._transport.abort()
