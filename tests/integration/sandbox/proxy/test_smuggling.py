"""Requests that two servers could interpret differently."""

from __future__ import annotations

import pytest

from tests.integration.sandbox.proxy.clients import (
    SMUGGLED,
    post,
    raw_model,
)
from tests.integration.sandbox.proxy.harness import (
    KEY,
    Recorder,
    connected,
    exchange,
)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: 4, 5",),
        ("Content-Length: +4",),
        ("Content-Length: -1",),
        ("Content-Length: 0x4",),
        ("Content-Length : 4",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: \x0bchunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding:chunked", "Transfer-encoding: chunked"),
        ("X: y\rTransfer-Encoding: chunked",),
        ("X: y\x00",),
        ("Host: other",),
        ("X y: z",),
        ("no colon",),
    ],
)
async def test_a_request_with_an_ambiguous_end_is_refused(lines: tuple[str, ...]):
    recorder = Recorder()
    async with raw_model(recorder) as port:
        answer = await exchange(port, post("/v1/messages", *lines, body=f"0\r\n\r\n{SMUGGLED}"))
    assert answer.startswith(("HTTP/1.1 400 ", "HTTP/1.1 501 "))
    assert answer.count("HTTP/1.1") == 1
    assert not recorder.received


async def test_chunks_of_http_1_0_are_refused():
    recorder = Recorder()
    request = post("/v1/messages", "Transfer-Encoding: chunked", body=f"0\r\n\r\n{SMUGGLED}")
    async with raw_model(recorder) as port:
        answer = await exchange(port, request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.startswith("HTTP/1.1 400 ")
    assert not recorder.received


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ("X-Folded: a\r\n b\r\n\tc", "x-folded: a b c\r\n"),
        ("X-Bare: a\nX-Api-Key: b", "x-bare: a\r\n"),
        ("X-Bare: a\nX-Smuggled: b", "x-bare: a\r\nx-smuggled: b\r\n"),
        ("Connection: x-api-key, x-hop\r\nX-Hop: 1", "\r\n"),
        ("Connection: content-length", "content-length: 2\r\n"),
        ("Content-Length: 2\r\nContent-Length: 2", "content-length: 2\r\n"),
    ],
)
async def test_old_header_forms_are_normalized(given: str, arrives: str):
    """Old forms of headers are forwarded in the form that all servers interpret equally."""
    recorder = Recorder()
    lines = (given,) if "Content-Length" in given else (given, "Content-Length: 2")
    async with raw_model(recorder) as port, connected(port) as raw:
        await raw.send(post("/v1/messages", *lines))
        assert (await raw.head()).startswith("HTTP/1.1 200 ")
    text = recorder.text.lower()
    assert arrives in text
    assert "x-hop" not in text
    assert text.count("x-api-key") == 1
    assert text.count("content-length") == 1
    assert text.replace("\r\n", "").count("\n") == 0
    assert KEY in text


async def test_bytes_after_a_request_are_checked_as_the_next_request():
    recorder = Recorder()
    async with raw_model(recorder) as port, connected(port) as raw:
        await raw.send(post() + SMUGGLED.encode())
        assert (await raw.head()).startswith("HTTP/1.1 200 ")
        await raw.reader.readexactly(2)
        assert (await raw.head()).startswith("HTTP/1.1 403 ")
    assert "/v1/models" not in recorder.text


async def test_chunks_are_parsed_strictly_and_encoded_again():
    recorder = Recorder()
    body = "2;x=y\r\n{}\r\n0\r\nX-Api-Key: trailer\r\n\r\n"
    async with raw_model(recorder) as port, connected(port) as raw:
        await raw.send(post("/v1/messages", "Transfer-Encoding: chunked", body=body))
        assert (await raw.head()).startswith("HTTP/1.1 200 ")
    assert recorder.text.endswith("\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    for broken in ("2\n{}\r\n0\r\n\r\n", "2\r\n{}xx0\r\n\r\n", "-2\r\n{}\r\n", "g\r\n"):
        async with raw_model(Recorder()) as port:
            request = post("/v1/messages", "Transfer-Encoding: chunked", body=broken)
            assert (await exchange(port, request)).startswith("HTTP/1.1 400 ")
