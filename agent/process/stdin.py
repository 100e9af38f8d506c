"""Writing lines to the standard input of a process."""

from __future__ import annotations

import asyncio
from typing import cast


class InputPipe(asyncio.Protocol):
    """The writing end of a pipe, with backpressure."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._writable.set()

    def pause_writing(self) -> None:
        """Make writers wait: the buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let writers continue."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release waiting writers: the reader is gone or the pipe was closed."""
        self._transport = None
        self._writable.set()

    async def write(self, line: bytes) -> bool:
        """Write a line, wait while the buffer is full, and return whether there is a reader.

        The line is written completely or not at all, even if the caller is cancelled.
        """
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(line)
        await self._writable.wait()
        return self._transport is not None

    def close(self) -> None:
        """Close the pipe once all data is written. Idempotent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the pipe now and discard unwritten data. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
