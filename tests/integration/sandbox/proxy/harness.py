"""A running proxy on loopback, with servers and connections for its tests."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from domain.configuration.isolation import HostRule, Network
from domain.names.addresses import Address
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.outside import Resolve
from sandbox.proxy.policy import Policy
from sandbox.proxy.server import Forward, serving

PLACEHOLDER = "a-random-placeholder"
KEY = "sk-ant-the-real-key"
LOOPBACK = ipaddress.ip_address("127.0.0.1")
PATIENCE = 20
# Loading certificates is slow.
NO_VARIABLES = ConnectionVariables({})

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FakeResolver:
    """Replaces the name service: each lookup takes the next answer, and the last one repeats."""

    answers: Mapping[str, Sequence[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers[host]
        answer = answers[min(self.asked.count(host), len(answers)) - 1]
        return [ipaddress.ip_address(text) for text in answer]


NAMES = FakeResolver({"server.example": [["127.0.0.1"]]})


def everywhere_at(*ports: int, name: str = "server.example") -> Policy:
    """Allow a name on some ports, and treat loopback as a public address."""
    rules = (HostRule(name, ports=frozenset(ports)), HostRule(name, True, frozenset(ports)))
    return Policy(Network.HOSTS, rules, allows_address=lambda address: address == LOOPBACK)


def new_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@contextlib.asynccontextmanager
async def proxy(
    policy: Policy | None = None,
    *,
    resolve: Resolve | None = NAMES,
    model: ModelUpstream | None = None,
    connection: ConnectionVariables = NO_VARIABLES,
    forwards: Sequence[Forward] = (),
    job_id: str = "job",
    placeholder: str = PLACEHOLDER,
) -> AsyncIterator[int]:
    """Run a proxy; yields its port. By default `server.example` is at 127.0.0.1."""
    listener = new_listener()
    port: int = listener.getsockname()[1]
    async with serving(
        [listener],
        job_id=job_id,
        policy=policy or Policy(Network.NONE),
        connection=connection,
        model=model,
        placeholder=placeholder,
        forwards=forwards,
        resolve=resolve,
    ):
        yield port


@contextlib.asynccontextmanager
async def upstream(
    base_url: str, connection: ConnectionVariables = NO_VARIABLES, *, custom: str = ""
) -> AsyncIterator[ModelUpstream]:
    """Create an upstream for the model with the key of the tests, and close it at the end."""
    given = {
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_CUSTOM_HEADERS": custom,
    }
    model = ModelUpstream.from_variables(given, connection)
    assert model is not None
    try:
        yield model
    finally:
        await model.aclose()


@contextlib.asynccontextmanager
async def server(speak: Speak, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server that handles and closes each connection; yields its port."""
    speaking: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        speaking.add(task)
        # asyncio logs a cancelled handler task as an error.
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            await speak(reader, writer)
        speaking.discard(task)
        writer.close()

    listening = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        tasks = list(speaking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Recorder:
    """Records the bytes of each connection, and answers every request with the same bytes."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> None:
        self.answer = answer
        self.received: list[bytearray] = []

    @property
    def text(self) -> str:
        return b"".join(self.received).decode()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = bytearray()
        self.received.append(received)
        answered = 0
        while data := await reader.read(65536):
            received += data
            while received.count(b"\r\n\r\n") > answered:
                answered += 1
                writer.write(self.answer)
                await writer.drain()


@dataclass
class Raw:
    """A raw connection to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> str:
        """Read up to the end of a response's headers."""
        async with asyncio.timeout(PATIENCE):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def rest(self) -> bytes:
        """Read until the proxy closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(port: int, request: bytes) -> str:
    """Send bytes, and return all bytes until the proxy closes the connection."""
    async with connected(port) as raw:
        await raw.send(request)
        return (await raw.rest()).decode()
