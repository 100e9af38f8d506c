"""Requests for http:// URLs: forwarded to allowed hosts in an unambiguous form."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from domain.configuration.isolation import Network
from sandbox.proxy.policy import Policy
from tests.integration.sandbox.proxy.harness import (
    KEY,
    PATIENCE,
    PLACEHOLDER,
    FakeResolver,
    Recorder,
    connected,
    everywhere_at,
    exchange,
    proxy,
    server,
    upstream,
)


def get(url: str, *lines: str, method: str = "GET", body: str = "") -> bytes:
    head = "\r\n".join((f"{method} {url} HTTP/1.1", "Host: other.example", *lines))
    return f"{head}\r\n\r\n{body}".encode()


async def test_request_and_response_are_forwarded_with_their_bodies():
    recorder = Recorder(b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\nX-Tag: a\r\n\r\nok")
    async with server(recorder) as port, proxy(everywhere_at(port)) as through:
        async with httpx.AsyncClient(
            proxy=f"http://127.0.0.1:{through}", trust_env=False, verify=False
        ) as job:
            url = f"http://server.example:{port}/a%2Fb/c?d=%20e"
            answer = await job.post(url, content=b"body", headers={"Cookie": "c=1"})
    assert (answer.status_code, answer.reason_phrase, answer.text) == (201, "Made", "ok")
    assert answer.headers["x-tag"] == "a"
    assert recorder.text.startswith("POST /a%2Fb/c?d=%20e HTTP/1.1\r\n")
    assert f"Host: server.example:{port}\r\n" in recorder.text
    assert "cookie: c=1\r\n" in recorder.text.lower()
    assert recorder.text.endswith("\r\n\r\nbody")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://server.example:{port}", "GET / HTTP/1.1"),
        ("HTTP://SERVER.example.:{port}/A", "GET /A HTTP/1.1"),
        ("http://server.example:{port}?q", "GET /?q HTTP/1.1"),
        ("http://server.example:{port}//a/../b?http://c/", "GET //a/../b?http://c/ HTTP/1.1"),
    ],
)
async def test_the_host_of_the_url_replaces_that_of_the_header(url: str, line: str):
    recorder = Recorder()
    async with server(recorder) as port, proxy(everywhere_at(port)) as through:
        await exchange(through, get(url.format(port=port), "Connection: close"))
    assert recorder.text.startswith(f"{line}\r\nHost: server.example:{port}\r\n")
    assert "other.example" not in recorder.text


async def test_hop_by_hop_headers_are_not_forwarded():
    recorder = Recorder(
        b"HTTP/1.1 200 OK\r\nConnection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=1\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
    )
    hops = (
        "Connection: close, X-Private", "X-Private: 1", "Keep-Alive: 1", "Proxy-Connection: close",
        "Proxy-Authorization: Basic secret", "TE: trailers", "Upgrade: websocket", "Trailer: X",
        "X-Public: 1",
    )  # fmt: skip
    async with server(recorder) as port, proxy(everywhere_at(port)) as through:
        answer = await exchange(through, get(f"http://server.example:{port}/", *hops))
    sent = [line.partition(":")[0].lower() for line in recorder.text.split("\r\n")[1:] if line]
    assert sent == ["host", "x-public"]
    assert [line.partition(":")[0] for line in answer.split("\r\n")[1:3]] == [
        "Content-Length",
        "Connection",
    ]


async def test_a_response_without_a_length_ends_with_its_connection():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        request = get(f"http://server.example:{port}/", "Connection: close")
        answer = await exchange(through, request)
        assert answer.endswith("\r\n\r\n9\r\nall of it\r\n0\r\n\r\n")
        old = await exchange(through, request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert old.endswith("\r\n\r\nall of it")


async def test_a_head_request_has_no_body():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with server(Recorder(answer)) as port, proxy(everywhere_at(port)) as through:
        request = get(f"http://server.example:{port}/", "Connection: close", method="HEAD")
        text = await exchange(through, request)
        assert "Content-Length: 5\r\n" in text
        assert text.endswith("\r\n\r\n")
        refused = await exchange(
            through, get("http://evil.example/", "Connection: close", method="HEAD")
        )
    assert refused.startswith("HTTP/1.1 403 ")
    assert refused.endswith("\r\n\r\n")


async def test_the_connection_to_a_server_is_kept_and_goes_to_the_checked_address():
    recorder = Recorder()
    names = FakeResolver({"server.example": [["127.0.0.1"], ["10.0.0.1"]]})
    async with server(recorder) as port, proxy(everywhere_at(port), resolve=names) as through:
        async with connected(through) as raw:
            for _ in range(3):
                await raw.send(get(f"http://server.example:{port}/"))
                assert (await raw.head()).startswith("HTTP/1.1 200 ")
                await raw.reader.readexactly(2)
    assert len(recorder.received) == 1
    assert len(names.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.0.0.1:443/", "http://[::1]/", "http://169.254.169.254/latest",
        "http://[::ffff:10.0.0.1]/", "http://100.100.100.200/", "http://private.example/",
    ],
)  # fmt: skip
async def test_private_addresses_are_refused(url: str):
    names = FakeResolver({"private.example": [["192.168.0.1"]]})
    async with proxy(Policy(Network.INTERNET), resolve=names) as through:
        answer = await exchange(through, get(url, "Connection: close"))
    assert answer.startswith("HTTP/1.1 403 ")
    assert "because its address is private." in answer


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://example.com:22/", 403),
        ("http://2130706433/", 400),
        ("http://0x7f.1/", 400),
        ("http://user@127.0.0.1/", 400),
        ("http://example.com@127.0.0.1/", 400),
        ("http://example.com\\@127.0.0.1/", 400),
        ("http://example.com#@127.0.0.1/", 400),
        ("http://example.com:80:80/", 400),
        ("http://[::1%25lo]/", 400),
        ("http:///path", 400),
        ("http://", 400),
        ("http:/example.com/", 400),
        ("https://example.com/", 400),
        ("ftp://example.com/", 400),
        ("file:///etc/passwd", 400),
        ("unix:///run/docker.sock", 400),
        ("ws://example.com/", 400),
        ("example.com/", 400),
        ("*", 400),
    ],
)
async def test_other_targets_are_refused(url: str, status: int):
    async with proxy(Policy(Network.INTERNET)) as through:
        answer = await exchange(through, get(url, "Connection: close"))
    assert answer.startswith(f"HTTP/1.1 {status} ")


async def test_trace_is_refused_because_its_answer_shows_all_headers():
    recorder = Recorder()
    async with server(recorder) as port, proxy(everywhere_at(port)) as through:
        request = get(f"http://server.example:{port}/", "Connection: close", method="TRACE")
        assert (await exchange(through, request)).startswith("HTTP/1.1 405 ")
    assert not recorder.received


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: 4", "Content-Length: 40"),
        ("Transfer-Encoding : chunked",),
    ],
)
async def test_a_request_with_an_ambiguous_end_is_refused(lines: tuple[str, ...]):
    recorder = Recorder()
    async with server(recorder) as port, proxy(everywhere_at(port)) as through:
        hidden = "0\r\n\r\nGET http://server.example/admin HTTP/1.1\r\nHost: x\r\n\r\n"
        request = get(f"http://server.example:{port}/", *lines, method="POST", body=hidden)
        answer = await exchange(through, request)
    assert answer.startswith(("HTTP/1.1 400 ", "HTTP/1.1 501 "))
    assert not recorder.received


async def test_the_credential_is_sent_only_to_the_model():
    model_server, other = Recorder(), Recorder()
    async with server(model_server) as at, server(other) as port:
        async with upstream(f"http://127.0.0.1:{at}") as model:
            async with proxy(everywhere_at(port), model=model) as through:
                for target in ("v1/messages", "v1/messages?x"):
                    url = f"http://server.example:{port}/{target}"
                    key = f"x-api-key: {PLACEHOLDER}"
                    answer = await exchange(through, get(url, key, "Connection: close"))
                    assert answer.startswith("HTTP/1.1 200 ")
                    assert KEY not in answer
    assert not model_server.received
    assert KEY not in other.text


async def test_a_client_that_leaves_cancels_its_request():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await reader.read()
        ended.set()

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        async with asyncio.timeout(PATIENCE):
            async with connected(through) as raw:
                await raw.send(get(f"http://server.example:{port}/"))
                await begun.wait()
            await ended.wait()


async def test_a_truncated_response_gives_502():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        answer = await exchange(through, get(f"http://server.example:{port}/", "Connection: close"))
    assert answer.startswith("HTTP/1.1 502 server.example cannot be reached: ")
