"""Limits for one job: connections, time and header bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket

import pytest

from domain.configuration.isolation import Network
from sandbox.proxy import accepting, inside
from sandbox.proxy.policy import Policy
from tests.integration.sandbox.proxy.clients import (
    echo,
    ended,
    open_tunnel,
    post,
    reset,
    silent,
    until,
)
from tests.integration.sandbox.proxy.harness import (
    PATIENCE,
    connected,
    everywhere_at,
    exchange,
    proxy,
    server,
    upstream,
)


async def test_more_connections_wait_until_one_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 2)
    async with server(echo) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as one, connected(through) as two:
            await open_tunnel(one, port)
            await open_tunnel(two, port)
            async with connected(through) as three:
                waiting = asyncio.create_task(open_tunnel(three, port))
                await one.send(b"still served")
                assert await one.reader.readexactly(12) == b"still served"
                assert not waiting.done()
                one.writer.write_eof()
                assert await one.rest() == b""
                async with asyncio.timeout(PATIENCE):
                    await waiting


async def test_connections_wait_while_the_process_has_no_file_descriptors(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accepting, "_PAUSE_SECONDS", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with proxy(Policy(Network.NONE)) as through:
        with socket.create_connection(("127.0.0.1", through)) as waiting:
            highest = waiting.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
            try:
                # The next descriptor may have a lower number, if others were closed before.
                fillers = []
                with contextlib.suppress(OSError):
                    while True:
                        fillers.append(os.dup(highest))
                await until(lambda: "wait: " in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                for filler in fillers:
                    os.close(filler)
            waiting.sendall(b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            waiting.settimeout(PATIENCE)
            answer = await asyncio.to_thread(waiting.recv, 100)
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("begun", [b"", b"G", b"POST /v1/messages HTTP/1.1\r\nHost: x\r\n"])
async def test_missing_headers_end_the_connection(begun: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inside, "HEADER_SECONDS", 0.05)
    monkeypatch.setattr(inside, "IDLE_SECONDS", 0.05)
    async with proxy() as through, connected(through) as raw:
        await raw.send(begun)
        assert await ended(raw)


async def test_slow_headers_end_the_connection(monkeypatch: pytest.MonkeyPatch):
    """Each byte arrives in time, but all of them together do not."""
    monkeypatch.setattr(inside, "HEADER_SECONDS", 0.2)
    async with proxy() as through, connected(through) as raw:
        assert await reset(raw, sending=b"G")


async def test_a_missing_body_ends_the_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inside, "BODY_SECONDS", 0.05)
    async with server(silent) as port, upstream(f"http://127.0.0.1:{port}") as model:
        async with proxy(model=model) as through, connected(through) as raw:
            await raw.send(post("/v1/messages", "Content-Length: 20"))
            assert await ended(raw)


@pytest.mark.parametrize(
    "request_line", ["GET /" + "a" * inside.HEADER_BYTES, "GET / HTTP/1.1\r\nX: " + "a" * 70_000]
)
async def test_headers_have_a_size_limit(request_line: str):
    async with proxy() as through:
        answer = await exchange(through, request_line.encode())
    assert answer.startswith("HTTP/1.1 431 The request is not HTTP, or its headers are over 64 KiB")


@pytest.mark.parametrize(
    "text", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"GET /\r\n\r\n"]
)
async def test_other_protocols_get_an_http_error(text: bytes):
    async with proxy() as through:
        assert (await exchange(through, text)).startswith("HTTP/1.1 400 The request is not HTTP")
