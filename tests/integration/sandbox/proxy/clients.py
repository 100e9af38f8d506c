"""Requests to the proxy, and an API that answers them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from starlette.types import Receive, Scope, Send

from domain.configuration.isolation import Network
from sandbox.proxy.policy import Policy
from tests.integration.sandbox.proxy.harness import (
    PATIENCE,
    PLACEHOLDER,
    Raw,
    Speak,
    proxy,
    server,
    upstream,
)

INTERNET = Policy(Network.INTERNET)
SMUGGLED = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Api:
    """Records each request, and echoes it."""

    requests: list[tuple[Scope, bytes]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        self.requests.append((scope, body))
        content = json.dumps({"size": len(body)}).encode()
        headers = [(b"content-type", b"application/json"), (b"request-id", b"req_1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of the last request."""
        scope, _ = self.requests[-1]
        return [(name.decode(), value.decode()) for name, value in scope["headers"]]


@asynccontextmanager
async def client(port: int, placeholder: str = PLACEHOLDER) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"x-api-key": placeholder},
        trust_env=False,
        verify=False,
    ) as made:
        yield made


@asynccontextmanager
async def model_proxy(base_url: str, custom: str = "") -> AsyncIterator[int]:
    async with upstream(base_url, custom=custom) as model, proxy(model=model) as port:
        yield port


@asynccontextmanager
async def raw_model(speak: Speak) -> AsyncIterator[int]:
    """Run a proxy in front of a raw server."""
    async with server(speak) as port, model_proxy(f"http://127.0.0.1:{port}") as through:
        yield through


def post(path: str = "/v1/messages", *lines: str, body: str = "{}") -> bytes:
    given = lines or (f"Content-Length: {len(body)}",)
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", f"x-api-key: {PLACEHOLDER}", *given))
    return f"{head}\r\n\r\n{body}".encode()


def connect(target: str, *lines: str) -> bytes:
    return ("\r\n".join((f"CONNECT {target} HTTP/1.1", "Host: x", *lines)) + "\r\n\r\n").encode()


async def open_tunnel(raw: Raw, port: int, host: str = "server.example") -> None:
    await raw.send(connect(f"{host}:{port}"))
    assert (await raw.head()).startswith("HTTP/1.1 200 ")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 (the condition has no event)
            await asyncio.sleep(0.01)


async def ended(raw: Raw) -> bool:
    """Return whether the proxy closes or resets the connection."""
    try:
        await raw.rest()
    except ConnectionError:
        pass
    return True


async def reset(raw: Raw, sending: bytes = b"") -> bool:
    """Return whether the proxy resets the connection, while bytes keep it active."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not raw.reader.at_eof():
                await raw.send(sending)
                await asyncio.sleep(0.02)
    except ConnectionError:
        return True
    return isinstance(raw.reader.exception(), ConnectionError)
