"""CONNECT: the targets of tunnels, and their bytes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket

import pytest

from domain.configuration.isolation import HostRule, Network
from domain.names.addresses import Address
from sandbox.proxy.policy import Policy
from sandbox.proxy.relay import CHUNK, reset_when_closed
from tests.integration.sandbox.proxy.clients import (
    INTERNET,
    connect,
    echo,
    open_tunnel,
)
from tests.integration.sandbox.proxy.harness import (
    PATIENCE,
    FakeResolver,
    connected,
    everywhere_at,
    exchange,
    proxy,
    server,
)


async def test_bytes_pass_in_both_directions_which_end_separately():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(await reader.read())
        writer.write(f"{size} bytes came".encode())

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await open_tunnel(raw, port)
            await raw.send(b"x" * 1_000_000)
            raw.writer.write_eof()
            assert await raw.rest() == b"1000000 bytes came"


async def test_a_server_that_ends_its_direction_still_receives():
    received = asyncio.get_running_loop().create_future()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        received.set_result(await reader.read())

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw, asyncio.timeout(PATIENCE):
            await open_tunnel(raw, port)
            assert await raw.reader.read() == b""
            await raw.send(b"late")
            raw.writer.write_eof()
            assert await received == b"late"


@pytest.mark.parametrize("host", ["Host: x\r\n", ""])
async def test_a_tunnel_of_http_1_0(host: str):
    """Python's own HTTP client, which pip uses, sends such requests."""
    async with server(echo) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await raw.send(f"CONNECT server.example:{port} HTTP/1.0\r\n{host}\r\n".encode())
            assert (await raw.head()).startswith("HTTP/1.1 200 ")
            await raw.send(b"hello")
            assert await raw.reader.readexactly(5) == b"hello"


async def test_bytes_sent_with_the_request_are_not_lost():
    async with server(echo) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await raw.send(connect(f"server.example:{port}") + b"early")
            assert (await raw.head()).startswith("HTTP/1.1 200 ")
            assert await raw.reader.readexactly(5) == b"early"


async def test_bytes_are_not_changed():
    block = hashlib.sha256(b"seed").digest() * 40_000

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for __ in range(20):
            writer.write(block)
            await writer.drain()

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await open_tunnel(raw, port)
            assert await raw.rest() == block * 20


async def test_a_stopped_reader_stops_the_sender():
    """Bytes in transit are limited to one chunk and the buffers of the system.

    Only waiting shows that the sender is blocked.
    """
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    async with proxy(everywhere_at(port)) as through, connected(through) as raw:
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        opening = asyncio.create_task(open_tunnel(raw, port))
        sender, _ = await loop.sock_accept(listener)
        await opening
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 50_000_000:
                async with asyncio.timeout(1):
                    await loop.sock_sendall(sender, bytes(CHUNK))
                sent += CHUNK
        assert sent < 50_000_000
        sender.close()
    listener.close()


async def test_a_connection_that_is_reset_resets_the_other_side():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        reset_when_closed(writer.get_extra_info("socket"))
        writer.transport.abort()

    async with server(speak) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await open_tunnel(raw, port)
            await raw.send(b"hello")
            with pytest.raises(ConnectionResetError):
                await raw.rest()


async def test_the_name_is_resolved_once_and_the_checked_address_is_used():
    names = FakeResolver({"server.example": [["127.0.0.1"], ["10.0.0.1"]]})
    async with server(echo) as port, proxy(everywhere_at(port), resolve=names) as through:
        async with connected(through) as raw:
            await open_tunnel(raw, port)
            await raw.send(b"hello")
            assert await raw.reader.readexactly(5) == b"hello"
        assert names.asked == ["server.example"]
        answer = await exchange(through, connect(f"server.example:{port}", "Connection: close"))
    assert "its address is private" in answer


async def test_the_next_address_is_tried_when_one_does_not_answer():
    names = FakeResolver({"server.example": [["127.0.0.2", "127.0.0.1"]]})
    async with server(echo) as port:
        rules = (HostRule("server.example", ports=frozenset({port})),)
        policy = Policy(Network.HOSTS, rules, allows_address=lambda address: address.is_loopback)
        async with proxy(policy, resolve=names) as through, connected(through) as raw:
            await open_tunnel(raw, port)


async def test_an_exempt_host_with_a_private_address_is_reachable():
    async with server(echo) as port:
        policy = Policy(Network.INTERNET, exempt=frozenset({("server.example", port)}))
        async with proxy(policy) as through, connected(through) as raw:
            await open_tunnel(raw, port)


async def test_letter_case_and_a_final_dot_do_not_matter():
    async with server(echo) as port, proxy(everywhere_at(port)) as through:
        async with connected(through) as raw:
            await open_tunnel(raw, port, "SERVER.Example.")


async def test_the_lookup_does_not_block_the_loop_and_is_cancelled_with_its_client():
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def never(_: str) -> list[Address]:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return []

    async with proxy(INTERNET, resolve=never) as through, asyncio.timeout(PATIENCE):
        async with connected(through) as raw:
            await raw.send(connect("slow.example:443"))
            await asked.wait()
            assert "its address is private" in await exchange(
                through, connect("127.0.0.1:443", "Connection: close")
            )
        await cancelled.wait()
