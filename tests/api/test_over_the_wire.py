"""What only raw bytes to a real server show: the API in uvicorn, as `orchestrator api` has it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from api.auth import MAX_BODY_BYTES
from tests.api.calls import SECRET, UNAUTHORIZED, Api
from tests.api.live import eventually

AUTHORIZED = b"Authorization: Bearer " + SECRET.encode() + b"\r\n"
TOO_LARGE = {"error": f"The request body is over {MAX_BODY_BYTES} bytes. Send a shorter one."}


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
        self.send(line + b" HTTP/1.1\r\nHost: api.test\r\n" + headers + b"\r\n" + body)
        return await self.answer()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers["content-length"]))
        assert headers["content-type"] == "application/json", body
        return Answer(int(first.split()[1]), headers, json.loads(body))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def port(api: Api) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(api.app, log_config=None, access_log=False, server_header=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))

    async def is_up() -> bool:
        return server.started

    await eventually(is_up, "the server is up")
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving
    listener.close()


@pytest.fixture
async def wire(port: int) -> AsyncIterator[Wire]:
    connection = Wire(*await asyncio.open_connection("127.0.0.1", port))
    yield connection
    await connection.close()


async def test_the_secret_opens(wire: Wire) -> None:
    answer = await wire.ask(b"GET /clients")
    assert (answer.status, answer.body) == (200, {"clients": []})
    assert "server" not in answer.headers


async def test_nothing_else_does(wire: Wire) -> None:
    for headers in (
        b"",
        b"Authorization:\r\n",
        b"Authorization: Bearer\r\n",
        b"Authorization: Bearer \xff\xfe\x80\r\n",
        AUTHORIZED * 2,
        b"X-Original-URL: /health\r\nX-Forwarded-Prefix: /health\r\n",
    ):
        answer = await wire.ask(b"GET /clients", headers)
        assert (answer.status, answer.body) == (401, UNAUTHORIZED), headers


async def test_no_spelling_of_health_leads_elsewhere(wire: Wire) -> None:
    for target in (b"/health/../jobs", b"//health", b"/health%2F", b"/jobs?/health"):
        answer = await wire.ask(b"GET " + target, b"")
        assert (answer.status, answer.body) == (401, UNAUTHORIZED), target


async def test_a_connection_lives_on_after_a_refused_body(wire: Wire) -> None:
    body = b"x" * 200_000
    length = b"Content-Length: %d\r\n" % len(body)
    refused = await wire.ask(b"POST /jobs", length, body)
    assert (refused.status, refused.body) == (401, UNAUTHORIZED)
    assert (await wire.ask(b"GET /clients")).status == 200


async def test_a_declared_length_over_the_limit_is_refused_at_once(wire: Wire) -> None:
    """Before a byte of the body has come."""
    answer = await wire.ask(b"POST /jobs", AUTHORIZED + b"Content-Length: 1000000000\r\n")
    assert (answer.status, answer.body) == (413, TOO_LARGE)


async def test_a_body_without_length_is_cut_at_the_limit(wire: Wire) -> None:
    headers = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    wire.send(b"POST /clients HTTP/1.1\r\nHost: api.test\r\n" + AUTHORIZED + headers + b"\r\n")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(MAX_BODY_BYTES // 65536 + 1):
        wire.send(chunk)
    answer = await wire.answer()
    assert (answer.status, answer.body) == (413, TOO_LARGE)


async def test_targets_that_nobody_types(wire: Wire) -> None:
    for target, status in (
        (b"/jobs/%", 400),
        (b"/jobs/%zz", 400),
        (b"/jobs/%00", 400),
        (b"/jobs/%FF%FE", 400),
        (b"/jobs/%ED%A0%80", 400),
        (b"/jobs?limit=%FF", 400),
        (b"/jobs?status=%00", 400),
        (b"/jobs?=&&&;;%%%", 200),
        (b"/jobs/" + b"x" * 50_000, 400),
        (b"/" + b"%2e%2e/" * 5000, 404),
        (b"http://other.test/nope", 404),
        (b"*", 404),
    ):
        answer = await wire.ask(b"GET " + target)
        assert answer.status == status, target[:50]


async def test_a_host_that_is_none(wire: Wire) -> None:
    for host in (b"[", b"a:b:c", b"x:99999999", b"\xff", b"a b"):
        wire.send(b"GET /nope HTTP/1.1\r\nHost: " + host + b"\r\n" + AUTHORIZED + b"\r\n")
        answer = await wire.answer()
        assert answer.status == 404
        assert answer.body == {"error": "There is no route GET /nope. See /docs."}


async def test_an_unknown_method(wire: Wire) -> None:
    answer = await wire.ask(b"PROPFIND /jobs")
    assert (answer.status, answer.headers["allow"]) == (405, "get, post")
    assert answer.body == {"error": "PROPFIND is not possible on /jobs. See /docs."}
