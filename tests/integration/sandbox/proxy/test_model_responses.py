"""Bodies and responses of Claude's API: streams, ends and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.sandbox.proxy.clients import (
    Api,
    client,
    model_proxy,
    post,
    raw_model,
)
from tests.integration.sandbox.proxy.harness import (
    KEY,
    PATIENCE,
    Recorder,
    connected,
    proxy,
    server,
    upstream,
)


@pytest.mark.parametrize("chunked", [True, False])
async def test_thirty_megabytes_pass(api: Api, api_url: str, chunked: bool):
    part = bytes(range(256)) * 4096

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield part

    async with model_proxy(api_url) as port, client(port) as job:
        content = parts() if chunked else part * 30
        answer = await job.post("/v1/messages", content=content, timeout=60)
    assert answer.json() == {"size": 30 * len(part)}
    assert api.requests[0][1] == part * 30


async def test_connections_are_kept_on_both_sides_and_shared_by_jobs(api: Api, api_url: str):
    async with upstream(api_url) as model:
        async with proxy(model=model) as one, proxy(model=model) as other:
            async with client(one) as first, client(other) as second:
                for _ in range(3):
                    await first.post("/v1/messages", json={})
                    await second.post("/v1/messages", json={})
                async with connected(one) as raw:
                    await raw.send(post())
                    await raw.head()
    assert len(api.requests) == 7
    assert len({scope["client"] for scope, _ in api.requests}) == 1


async def test_an_expected_continue_comes_before_the_body(api: Api, api_url: str):
    async with model_proxy(api_url) as port, connected(port) as raw:
        await raw.send(post("/v1/messages", "Expect: 100-continue", "Content-Length: 2", body=""))
        assert (await raw.head()).startswith("HTTP/1.1 100 ")
        await raw.send(b"{}")
        assert (await raw.head()).startswith("HTTP/1.1 200 ")
    assert api.requests[0][1] == b"{}"
    assert "expect" not in dict(api.headers)


async def test_a_refused_body_is_not_requested(api: Api, api_url: str):
    async with model_proxy(api_url) as port, connected(port) as raw:
        await raw.send(post("/v1/other", "Expect: 100-continue", "Content-Length: 2", body=""))
        assert (await raw.head()).startswith("HTTP/1.1 403 ")


async def test_a_refusal_arrives_although_its_body_is_still_being_sent(api: Api, api_url: str):
    async with model_proxy(api_url) as port, client(port, placeholder="wrong") as job:
        answer = await job.post("/v1/messages", content=bytes(8_000_000))
    assert answer.status_code == 401


async def test_each_event_is_forwarded_at_once():
    seen = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n7\r\nfirst\n\n\r\n")
        await seen.wait()
        writer.write(b"8\r\nsecond\n\n\r\n0\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with asyncio.timeout(PATIENCE), raw_model(speak) as port, client(port) as job:
        async with job.stream("POST", "/v1/messages", content=b"{}") as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"first\n\n"
            seen.set()
            assert await anext(parts) == b"second\n\n"


async def test_the_encoding_of_the_answer_is_unchanged():
    compressed = b"\x1f\x8b\x00\xff"
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n" + compressed
    async with raw_model(Recorder(answer)) as port, connected(port) as raw:
        await raw.send(post())
        assert "content-encoding: gzip" in (await raw.head()).lower()
        assert await raw.reader.readexactly(4) == compressed


@pytest.mark.parametrize("moment", ["waiting", "streaming"])
async def test_a_client_that_leaves_cancels_its_request(moment: str):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        if moment == "streaming":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        begun.set()
        assert await reader.read() == b""
        ended.set()

    async with asyncio.timeout(PATIENCE), raw_model(speak) as port:
        async with connected(port) as raw:
            await raw.send(post())
            await begun.wait()
            if moment == "streaming":
                await raw.head()
        await ended.wait()


async def test_a_client_that_leaves_in_the_middle_of_its_body_cancels_its_request():
    ended = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"half")
        await reader.read()
        ended.set()

    async with asyncio.timeout(PATIENCE), raw_model(speak) as port:
        async with connected(port) as raw:
            await raw.send(post("/v1/messages", "Content-Length: 8", body="half"))
        await ended.wait()


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_a_truncated_answer_does_not_look_complete(version: bytes):
    """In HTTP/1.0 the end of the connection ends the answer."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")

    async with raw_model(speak) as port, connected(port) as raw:
        await raw.send(post().replace(b"HTTP/1.1", version))
        with pytest.raises(ConnectionResetError):
            await raw.rest()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "cannot be reached: Server disconnected without sending a response."),
        (b"nonsense\r\n\r\n", "cannot be reached"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "cannot be reached"),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", "asks for a password"),
    ],
)
async def test_a_server_that_fails_gives_502_with_a_sentence(answer: bytes, sentence: str):
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer)

    async with raw_model(speak) as port, client(port) as job:
        response = await job.post("/v1/messages", content=b"{}")
    assert response.status_code == 502
    assert response.json()["error"]["type"] == "api_error"
    assert sentence in response.json()["error"]["message"]
    assert KEY not in response.text


async def test_an_unreachable_server_gives_502_with_a_sentence():
    async with server(Recorder()) as closed:
        pass
    async with model_proxy(f"http://127.0.0.1:{closed}") as port, client(port) as job:
        response = await job.post("/v1/messages", content=b"{}")
    assert response.status_code == 502
    assert f"http://127.0.0.1:{closed} cannot be reached" in response.json()["error"]["message"]


async def test_an_answer_with_two_lengths_is_sent_in_chunks():
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    async with raw_model(Recorder(answer)) as port, client(port) as job:
        response = await job.post("/v1/messages", content=b"{}")
    assert response.text == "ok"
    assert "content-length" not in response.headers
    assert "x-hop" not in response.headers
    assert "keep-alive" not in response.headers
