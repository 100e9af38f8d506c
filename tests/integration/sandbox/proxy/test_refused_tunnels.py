"""CONNECT: refused tunnels and their sentences."""

from __future__ import annotations

import pytest

from domain.configuration.isolation import Network
from sandbox.proxy.policy import Policy
from tests.integration.sandbox.proxy.clients import (
    INTERNET,
    connect,
    echo,
    open_tunnel,
)
from tests.integration.sandbox.proxy.harness import (
    FakeResolver,
    Recorder,
    connected,
    everywhere_at,
    exchange,
    proxy,
    server,
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1.", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "[::1]", "[::]", "[fd00:ec2::254]",
        "[fe80::1]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]",
        "[2002:7f00:1::1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]",
        "[2001:0:0:0:0:0:80ff:fffe]", "224.0.0.1", "255.255.255.255", "198.18.0.1",
    ],
)  # fmt: skip
async def test_addresses_that_are_not_public_are_refused(host: str):
    async with proxy(INTERNET) as through:
        answer = await exchange(through, connect(f"{host}:443", "Connection: close"))
    assert answer.startswith("HTTP/1.1 403 The sandbox does not allow ")
    assert "because its address is private. Only public addresses can be reached.\n" in answer


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["8.8.8.8", "fd00:ec2::254"], ["fe80::1%lo"]],
)
async def test_names_of_addresses_that_are_not_public_are_refused(addresses: list[str]):
    names = FakeResolver({"rebound.example": [addresses]})
    async with proxy(INTERNET, resolve=names) as through:
        answer = await exchange(through, connect("rebound.example:443", "Connection: close"))
    assert answer.startswith("HTTP/1.1 403 The sandbox does not allow rebound.example, because ")


async def test_the_real_name_service_is_used():
    policy = Policy(Network.INTERNET)
    async with proxy(policy, resolve=FakeResolver({"localhost": [["127.0.0.1"]]})) as through:
        stand_in = await exchange(through, connect("localhost:443", "Connection: close"))
    async with proxy(policy, resolve=None) as through:
        answer = await exchange(through, connect("localhost:443", "Connection: close"))
    assert answer == stand_in
    assert "its address is private" in answer


@pytest.mark.parametrize(
    "target",
    [
        "2130706433:443", "0x7f000001:443", "0x7f.1:443", "0177.0.0.1:443", "127.1:443",
        "example.com", "example.com:", ":443", "example.com:0", "example.com:65536", "*:443",
        "user@example.com:443", "user:pass@127.0.0.1:443", "[::1%lo]:443", "::1:443", "/",
        "http://example.com/", "example.com..:443", "ex%61mple.com:443", "example.com:443/path",
        "example.com:443#x", "example.com:443?x",
    ],
)  # fmt: skip
async def test_invalid_targets_are_refused(target: str):
    async with proxy(INTERNET) as through:
        answer = await exchange(through, connect(target, "Connection: close"))
    assert answer.startswith("HTTP/1.1 400 ")


async def test_a_port_that_is_not_allowed_is_refused():
    async with proxy(INTERNET) as through:
        answer = await exchange(through, connect("example.com:22", "Connection: close"))
    sentence = "The sandbox does not allow port 22 of example.com; it allows 80, 443."
    assert answer.startswith(f"HTTP/1.1 403 {sentence}\r\n")
    assert answer.endswith(f"\r\n\r\n{sentence}\n")


async def test_a_host_that_is_not_listed_is_refused_before_its_name_is_resolved():
    names = FakeResolver({"evil.example": [["8.8.8.8"]]})
    async with proxy(everywhere_at(443), resolve=names) as through:
        answer = await exchange(through, connect("evil.example:443", "Connection: close"))
    sentence = "The sandbox does not allow evil.example. The operator can add it to SANDBOX_HOSTS."
    assert sentence in answer
    assert not names.asked


async def test_a_name_without_an_address_gives_502():
    async with proxy(INTERNET) as through:
        answer = await exchange(through, connect("nowhere.example:443", "Connection: close"))
    assert answer.startswith("HTTP/1.1 502 nowhere.example has no address: ")


async def test_an_unreachable_server_gives_502():
    async with server(echo) as port:
        pass
    async with proxy(everywhere_at(port)) as through:
        answer = await exchange(through, connect(f"server.example:{port}", "Connection: close"))
    sentence = f"server.example cannot be reached at port {port}: connection refused."
    assert answer.startswith(f"HTTP/1.1 502 {sentence}\r\n")


async def test_a_tunnel_with_a_body_is_refused():
    recorder = Recorder()
    async with server(recorder) as port, proxy(everywhere_at(port)) as through:
        request = connect(f"server.example:{port}", "Content-Length: 5") + b"hello"
        assert (await exchange(through, request)).startswith("HTTP/1.1 400 ")
    assert not recorder.received


async def test_a_connection_can_be_used_again_after_a_refusal():
    async with server(echo) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await raw.send(connect("evil.example:443"))
            head = await raw.head()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            await raw.reader.readexactly(length)
            await open_tunnel(raw, port)
