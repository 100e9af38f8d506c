"""Throughput of the sandbox's proxy, and its added latency for a request to the model."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from domain.configuration.isolation import HostRule, Network
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.policy import Policy
from sandbox.proxy.server import serving

GIGABYTE = 1_000_000_000
BLOCK = 1 << 20
CALLS = 1000
PLACEHOLDER = "placeholder"
_REQUEST = (
    b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: placeholder\r\nAccept: */*\r\n"
    b"Anthropic-Version: 2023-06-01\r\nContent-Type: application/json\r\nUser-Agent: bench\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def report() -> None:
    asyncio.run(_report())


async def _report() -> None:
    direct, tunnelled = await throughput()
    print(f"tunnel of the sandbox            {tunnelled:6.0f} MB/s  (goal: 200 or more)")
    print(f"the same connection without it   {direct:6.0f} MB/s")
    plain, proxied = await overhead()
    print(f"request to the model             {plain:6.2f} ms, by the proxy {proxied:6.2f} ms")
    print(f"difference                       {proxied - plain:6.2f} ms  (goal: 1 or less)")


async def throughput() -> tuple[float, float]:
    """Return MB/s from a local sender without and with the proxy; each the best of three."""
    with _thread_server(_send_gigabyte) as port:
        async with _proxy(port, None) as proxy:
            direct = [await asyncio.to_thread(_receive, port, None) for _ in range(3)]
            tunnelled = [await asyncio.to_thread(_receive, proxy, port) for _ in range(3)]
    return max(direct), max(tunnelled)


async def overhead() -> tuple[float, float]:
    """Return the median ms of a small request to a local model, without and with the proxy."""
    with _thread_server(_answer_requests) as port:
        model = ModelUpstream(
            f"http://127.0.0.1:{port}", [("x-api-key", "key")], (), ConnectionVariables({})
        )
        async with _proxy(port, model) as proxy:
            plain, proxied = await asyncio.to_thread(_alternate, port, proxy)
        await model.aclose()
    return plain, proxied


@contextlib.asynccontextmanager
async def _proxy(port: int, model: ModelUpstream | None) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    rule = HostRule("127.0.0.1", ports=frozenset({port}))
    async with serving(
        [listener],
        job_id="bench",
        policy=Policy(Network.HOSTS, (rule,), allows_address=lambda _: True),
        connection=ConnectionVariables({}),
        model=model,
        placeholder=PLACEHOLDER,
    ):
        yield listener.getsockname()[1]


@contextlib.contextmanager
def _thread_server(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = listener.accept()
                threading.Thread(target=speak, args=(connected,)).start()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _send_gigabyte(connected: socket.socket) -> None:
    block = bytes(BLOCK)
    with connected:
        for _ in range(GIGABYTE // BLOCK):
            connected.sendall(block)


def _receive(port: int, target: int | None) -> float:
    """Return MB/s from a port, or through the tunnel that the proxy there opens to a target."""
    block = bytearray(BLOCK)
    size = 0
    with socket.create_connection(("127.0.0.1", port)) as connected:
        if target is not None:
            connected.sendall(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        began = time.perf_counter()
        while taken := connected.recv_into(block):
            size += taken
    return size / (time.perf_counter() - began) / 1e6


def _answer_requests(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connected, contextlib.suppress(ConnectionError):
        received = b""
        while data := connected.recv(BLOCK):
            received += data
            if received.endswith(b"\r\n\r\n{}"):
                received = b""
                connected.sendall(_RESPONSE)


def _alternate(*ports: int) -> list[float]:
    """Return the median ms of a request to each port, sent in turns over kept connections."""
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for port in ports
        ]
        times: list[list[float]] = [[] for _ in ports]
        for _ in range(CALLS):
            for connected, taken in zip(connections, times, strict=True):
                began = time.perf_counter()
                connected.sendall(_REQUEST)
                connected.recv(BLOCK)
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) * 1000 for taken in times]
