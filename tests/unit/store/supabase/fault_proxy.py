"""A proxy before the data API that simulates the faults of networks and gateways."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from urllib.parse import urlsplit


class Fault(Enum):
    """A fault of a connection."""

    RESET_BEFORE = auto()
    """Reset after the request arrived and before it is forwarded."""
    RESET_AFTER = auto()
    """Reset after the server answered and before the answer is forwarded."""
    CUT_ANSWER = auto()
    """Closed before the last quarter of the answer."""
    STALL_BEFORE = auto()
    """No answer; the request is not forwarded."""
    STALL_AFTER = auto()
    """No answer, although the server answered."""


@dataclass(frozen=True)
class Instead:
    """An answer of the proxy itself."""

    status: int
    body: str = "<html>Service unavailable</html>"


@dataclass
class FaultProxy:
    """A running proxy. Each request takes one of `faults`, or is forwarded if there is none."""

    url: str
    server: tuple[str, int]
    faults: deque[Fault | Instead] = field(default_factory=deque)
    always: Fault | Instead | None = None
    requests: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def forget(self) -> None:
        """Clear the recorded requests."""
        self.requests.clear()
        self.answers.clear()
        self.answered.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read_message(reader)
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else self.always
        if isinstance(fault, Instead):
            writer.write(_answer(fault))
            return True
        if fault is Fault.STALL_BEFORE:
            await reader.read()
        if fault in {Fault.RESET_BEFORE, Fault.STALL_BEFORE}:
            return _reset(writer)
        answer = await self._forward(request)
        self.answers.append(answer)
        self.answered.set()
        if fault is Fault.STALL_AFTER:
            await reader.read()
        if fault in {Fault.RESET_AFTER, Fault.STALL_AFTER}:
            return _reset(writer)
        writer.write(answer if fault is None else answer[: -len(answer) // 4])
        await writer.drain()
        return fault is None

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self.server)
        try:
            writer.write(request)
            return await _read_message(reader)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def fault_proxy(url: str, port: int = 0) -> AsyncIterator[FaultProxy]:
    parts = urlsplit(url)
    proxy = FaultProxy("", (parts.hostname or "", parts.port or 0))
    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(_tracked(proxy, tasks), "127.0.0.1", port)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def _tracked(
    proxy: FaultProxy, tasks: set[asyncio.Task[None]]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(proxy.serve(reader, writer)))

    return accept


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Read a complete request or answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    headers = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if line)
    if headers.get(b"transfer-encoding", b"").strip() == b"chunked":
        return head + await _read_chunks(reader)
    return head + await reader.readexactly(int(headers.get(b"content-length", b"0")))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        chunks += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return chunks


def _answer(instead: Instead) -> bytes:
    body = instead.body.encode()
    kind = "application/json" if instead.body.startswith("{") else "text/html"
    head = f"HTTP/1.1 {instead.status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Close the connection with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return False
