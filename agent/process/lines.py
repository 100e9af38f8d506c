"""The lines of a process's two output streams, in order of arrival, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, cast

from agent.claude.events import Event, Heartbeat, MessageTaken, SessionState, read_event

StreamName = Literal["stdout", "stderr"]

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is cut here; the CLI's own are below 2 MB (measured)."""

BUFFERED_BYTES = 1024 * 1024
"""Whole lines kept for a slow reader, apart from the newest; then the pipe is left to fill."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line without its newline; `event` is None on stderr."""

    stream: StreamName
    text: str
    event: Event | None

    @property
    def carries_something(self) -> bool:
        """Whether it shows that the work goes on, and not only that the CLI is there."""
        is_sign = isinstance(self.event, Heartbeat | MessageTaken | SessionState)
        return bool(self.text) and not is_sign


class LineSplitter:
    """Cuts a stream of bytes into lines at newlines and nowhere else.

    `str.splitlines` would also cut at U+2028, which stands unescaped in JSON strings.
    """

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes, without newlines."""
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._keep(line)
            yield self._take()
        self._keep(rest)

    def finish(self) -> Iterator[bytes]:
        """Yield what came after the last newline, if anything."""
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
    """Collects the lines of both streams for one reader, and holds the process back when full."""

    def __init__(self) -> None:
        self._lines: deque[tuple[StreamName, bytes]] = deque()
        self._size = 0
        self._bounded = True
        self._paused = False
        self._open: dict[StreamName, asyncio.ReadTransport] = {}
        self._news = asyncio.Event()

    def opened(self, stream: StreamName, transport: asyncio.ReadTransport) -> None:
        """Note that a stream is there to be read."""
        self._open[stream] = transport
        if self._paused:
            transport.pause_reading()

    def closed(self, stream: StreamName) -> None:
        """Note that a stream has ended."""
        self._open.pop(stream, None)
        self._news.set()

    def add(self, stream: StreamName, line: bytes) -> None:
        """Append a line."""
        self._lines.append((stream, line))
        self._size += len(line)
        self._news.set()
        self._balance()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OutputLine:
        while not self._lines:
            if not self._open:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        stream, line = self._lines.popleft()
        self._size -= len(line)
        self._balance()
        text = line.decode("utf-8", "replace")
        return OutputLine(stream, text, read_event(text) if stream == "stdout" else None)

    def release(self) -> None:
        """Take in the rest, at most the two pipes' capacity, now that nobody writes any more."""
        self._bounded = False
        self._balance()

    def close(self) -> None:
        """Stop reading; lines already taken in can still be taken out."""
        for transport in self._open.values():
            transport.close()
        self._open.clear()
        self._news.set()

    def _balance(self) -> None:
        # Half empty before it goes on, so that it does not stop and go with every line.
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
    """Reads one of the two pipes into `Output`."""

    def __init__(self, stream: StreamName, output: Output) -> None:
        self._stream: StreamName = stream
        self._output = output
        self._splitter = LineSplitter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is connected."""
        self._output.opened(self._stream, cast(asyncio.ReadTransport, transport))

    def data_received(self, data: bytes) -> None:
        """A chunk has come."""
        for line in self._splitter.feed(data):
            self._output.add(self._stream, line)

    def connection_lost(self, exc: Exception | None) -> None:
        """The pipe has ended."""
        for line in self._splitter.finish():
            self._output.add(self._stream, line)
        self._output.closed(self._stream)
