"""Slow clients, and too many connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from api.http import serving
from api.http.serving import LimitedProtocol
from tests.unit.api.calls import UNAUTHORIZED, Api
from tests.unit.api.wire import AUTHORIZED, Wire, connection, running_server

LATE = {"error": "The request did not arrive in time. Send it again."}
HEAD = b"POST /clients HTTP/1.1\r\nHost: localhost\r\n"
JSON_BODY = AUTHORIZED + b"Content-Type: application/json\r\nContent-Length: 16\r\n\r\n"


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of a fraction of a second."""
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.3)


async def assert_disconnected(wire: Wire) -> None:
    assert await wire.rest() == b""


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize("sent", [b"G", b"GET /health HTTP/1.1\r\n", HEAD + b"X-A: b\r\nX-B:"])
async def test_incomplete_request_times_out(wire: Wire, sent: bytes) -> None:
    wire.send(sent)
    answer = await wire.answer()
    assert (answer.status, answer.body) == (408, LATE)
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    await assert_disconnected(wire)


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize("piece", [b"X: y\r\n", b"\r\n"])
async def test_slow_headers_time_out(wire: Wire, piece: bytes) -> None:
    """Endless headers, or empty lines, which begin no request."""
    assert (await wire.ask(b"GET /clients")).status == 200
    if piece != b"\r\n":
        wire.send(b"GET /health HTTP/1.1\r\n")
    reading = asyncio.create_task(wire.rest())
    while not reading.done():
        wire.send(piece)
        await asyncio.sleep(0.01)
    # Data sent to a closed connection resets it, perhaps before the answer was read.
    assert isinstance(reading.exception(), ConnectionError | None)


@pytest.mark.usefixtures("short_deadlines")
async def test_silent_connection_is_closed(wire: Wire) -> None:
    await assert_disconnected(wire)


@pytest.mark.usefixtures("short_deadlines")
async def test_incomplete_second_request_times_out(wire: Wire) -> None:
    assert (await wire.ask(b"GET /clients")).status == 200
    wire.send(b"GET /clients HTTP/1.1\r\n")
    assert (await wire.answer()).status == 408
    await assert_disconnected(wire)


@pytest.mark.usefixtures("short_deadlines")
async def test_incomplete_pipelined_request_times_out(wire: Wire) -> None:
    assert (await wire.ask(b"GET /clients", AUTHORIZED, b"GET /cl")).status == 200
    assert (await wire.answer()).status == 408
    await assert_disconnected(wire)


@pytest.mark.usefixtures("short_deadlines")
async def test_incomplete_body_times_out_without_effect(api: Api, wire: Wire) -> None:
    wire.send(HEAD + JSON_BODY + b'{"name": ')
    answer = await wire.answer()
    assert (answer.status, answer.body) == (408, LATE)
    await assert_disconnected(wire)
    assert (await api.get("/clients"))["clients"] == []


@pytest.mark.usefixtures("short_deadlines")
async def test_incomplete_body_of_a_refused_request_times_out(wire: Wire) -> None:
    answer = await wire.ask(b"POST /clients", b"Content-Length: 16\r\n", b"{")
    assert (answer.status, answer.body) == (401, UNAUTHORIZED)
    await assert_disconnected(wire)


async def test_invalid_pipelined_request_gets_no_answer_out_of_order() -> None:
    """The invalid request arrives while the one before it is still being answered."""
    entered = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await receive()
        await receive()

    async with running_server(slow) as port, connection(port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await entered.wait()
        wire.send(b"what is this\r\n\r\n")
        await assert_disconnected(wire)


@pytest.mark.usefixtures("short_deadlines")
async def test_idle_connection_can_be_used_again(wire: Wire) -> None:
    for _ in range(2):
        assert (await wire.ask(b"GET /clients")).status == 200
        await asyncio.sleep(2 * serving.BODY_SECONDS)
    assert (await wire.ask(b"GET /clients")).status == 200


async def test_request_in_pieces(wire: Wire) -> None:
    for piece in (HEAD[:5], HEAD[5:], JSON_BODY, b'{"name"', b': "Acme"}'):
        wire.send(piece)
        await asyncio.sleep(0)
    assert (await wire.answer()).status == 201


@pytest.mark.usefixtures("short_deadlines")
async def test_slow_answer_does_not_time_out() -> None:
    """Not even if a part of the next request has arrived."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(4 * serving.HEAD_SECONDS)
        await JSONResponse({})(scope, receive, send)

    async with running_server(slow) as port, connection(port) as wire:
        assert (await wire.ask(b"GET /", b"", b"GET /")).status == 200
        assert (await wire.answer()).status == 408


async def test_headers_over_the_limit(wire: Wire) -> None:
    wire.send(b"GET /health HTTP/1.1\r\nX: " + b"x" * (serving.MAX_HEAD_BYTES + 1))
    answer = await wire.answer()
    assert answer.status == 431
    assert "over 65536 bytes" in answer.body["error"]
    await assert_disconnected(wire)


async def test_request_that_is_not_http(wire: Wire) -> None:
    wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.body) == (400, {"error": "Invalid HTTP request received."})
    await assert_disconnected(wire)


async def test_trailers_are_dropped() -> None:
    async def names(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        await JSONResponse(list(request.headers))(scope, receive, send)

    async with running_server(names) as port, connection(port) as wire:
        answer = await wire.ask(
            b"POST /", b"Transfer-Encoding: chunked\r\n", b"0\r\nX-Late: 1\r\n\r\n"
        )
        assert answer.body == ["host", "transfer-encoding"]


async def test_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "UNREAD_SECONDS", 0.3)
    lost = asyncio.Event()

    def connection_lost(self: LimitedProtocol, exc: Exception | None) -> None:
        real(self, exc)
        lost.set()

    real = LimitedProtocol.connection_lost
    monkeypatch.setattr(LimitedProtocol, "connection_lost", connection_lost)

    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"x" * 64 * 1024 * 1024)(scope, receive, send)

    async with running_server(long) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(20):
                await lost.wait()


@pytest.fixture
async def full(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[AsyncExitStack, list[Wire]]]:
    """A server at its limit of connections."""
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(serving, "MAX_REFUSED_CONNECTIONS", 1)
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connection(port)) for _ in range(3)]
        for wire in wires:
            assert (await wire.ask(b"GET /clients")).status == 200
        yield stack, wires


async def test_connection_over_the_limit_gets_an_error(
    port: int, full: tuple[AsyncExitStack, list[Wire]]
) -> None:
    _, wires = full
    async with connection(port) as surplus:
        answer = await surplus.ask(b"GET /clients")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "3 open connections" in answer.body["error"]
        await assert_disconnected(surplus)
    for wire in wires:
        assert (await wire.ask(b"GET /clients")).status == 200
    await wires[0].close()
    await _is_taken(port)


async def test_connections_far_over_the_limit_are_closed(
    port: int, full: tuple[AsyncExitStack, list[Wire]]
) -> None:
    _, wires = full
    async with connection(port) as refused:
        refused.send(b"GET")
        for _ in range(5):
            async with connection(port) as surplus:
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await surplus.ask(b"GET /clients")
        assert (await wires[0].ask(b"GET /clients")).status == 200


async def _is_taken(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            async with connection(port) as wire:
                if (await wire.ask(b"GET /clients")).status == 200:
                    return
