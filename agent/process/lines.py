"""Read the lines of both output streams of a process in order of arrival, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, cast

StreamName = Literal["stdout", "stderr"]

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is truncated; the CLI's own lines are below 2 MB (measured)."""

BUFFERED_BYTES = 1024 * 1024
"""Size of the lines kept for a slow reader; reading from the pipes then pauses."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line without its newline."""

    stream: StreamName
    text: str


class LineSplitter:
    """Splits a stream of bytes into lines at newlines only.

    `str.splitlines` would also split at U+2028, which is unescaped in JSON strings.
    """

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes."""
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            self._keep(line)
            yield self._take()
        self._keep(rest)

    def finish(self) -> Iterator[bytes]:
        """Yield the text after the last newline, if there is any."""
        if self._size:
            yield self._take()

    def _keep(self, part: bytes) -> None:
        part = part[: MAX_LINE_BYTES - self._size]
        if part:
            self._partial.append(part)
            self._size += len(part)

    def _take(self) -> bytes:
        line = b"".join(self._partial)
        self._partial.clear()
        self._size = 0
        return line


class Output:
    """Buffers the lines of both streams for one reader, with backpressure."""

    def __init__(self) -> None:
        self._lines: deque[tuple[StreamName, bytes]] = deque()
        self._size = 0
        self._bounded = True
        self._paused = False
        self._open: dict[StreamName, asyncio.ReadTransport] = {}
        self._changed = asyncio.Event()

    def opened(self, stream: StreamName, transport: asyncio.ReadTransport) -> None:
        """Register a connected stream."""
        self._open[stream] = transport
        if self._paused:
            transport.pause_reading()

    def closed(self, stream: StreamName) -> None:
        """Unregister a stream that has ended."""
        self._open.pop(stream, None)
        self._changed.set()

    def add(self, stream: StreamName, line: bytes) -> None:
        """Append a line."""
        self._lines.append((stream, line))
        self._size += len(line)
        self._changed.set()
        self._balance()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OutputLine:
        while not self._lines:
            if not self._open:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        stream, line = self._lines.popleft()
        self._size -= len(line)
        self._balance()
        return OutputLine(stream, line.decode("utf-8", "replace"))

    def release(self) -> None:
        """Read the rest without a limit: no process writes any more, so the pipes bound it."""
        self._bounded = False
        self._balance()

    def close(self) -> None:
        """Stop reading; buffered lines can still be read."""
        for transport in self._open.values():
            transport.close()
        self._open.clear()
        self._changed.set()

    def _balance(self) -> None:
        # Reading resumes at half the limit, so that it does not stop again at the next line.
        limit = BUFFERED_BYTES // 2 if self._paused else BUFFERED_BYTES
        full = self._bounded and self._size > limit
        if full == self._paused:
            return
        self._paused = full
        for transport in self._open.values():
            if transport.is_closing():
                continue
            if full:
                transport.pause_reading()
            else:
                transport.resume_reading()


class StreamReading(asyncio.Protocol):
    """Reads one pipe into `Output`."""

    def __init__(self, stream: StreamName, output: Output) -> None:
        self._stream: StreamName = stream
        self._output = output
        self._splitter = LineSplitter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the stream."""
        self._output.opened(self._stream, cast(asyncio.ReadTransport, transport))

    def data_received(self, data: bytes) -> None:
        """Split a chunk into lines."""
        for line in self._splitter.feed(data):
            self._output.add(self._stream, line)

    def connection_lost(self, exc: Exception | None) -> None:
        """Add the last line and unregister the stream."""
        for line in self._splitter.finish():
            self._output.add(self._stream, line)
        self._output.closed(self._stream)
