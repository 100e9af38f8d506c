"""A server that runs the API like `orchestrator api`, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from api.http.serving import make_server
from tests.unit.api.calls import SECRET
from tests.unit.api.live import eventually

AUTHORIZED = b"Authorization: Bearer " + SECRET.encode() + b"\r\n"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


class Wire:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def ask(self, line: bytes, headers: bytes = AUTHORIZED, body: bytes = b"") -> Answer:
        self.send(line + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + body)
        return await self.answer()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers["content-length"]))
        assert headers["content-type"] == "application/json", body
        return Answer(int(first.split()[1]), headers, json.loads(body))

    async def rest(self) -> bytes:
        """Read until the server closes the connection."""
        async with asyncio.timeout(10):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def running_server(app: ASGIApp) -> AsyncIterator[int]:
    """Run a server and yield its port."""
    server = make_server(app, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())

    async def is_up() -> bool:
        return server.started

    await eventually(is_up, "the server is up")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[Wire]:
    """Connect to a server on this host."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield wire
    finally:
        await wire.close()
