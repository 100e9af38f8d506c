"""Connections from the worker to the hosts that a job requests, checked by the policy."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h11
import httpcore

from domain.names.addresses import Address, literal
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.headers import has_body, request_headers
from sandbox.proxy.policy import Policy, Refused
from sandbox.proxy.relay import SocketStream

RESOLVE_SECONDS = 15.0
"""Seconds for a name lookup: two tries of 5 s (the defaults of resolv.conf(5)) and a margin."""
CONNECT_SECONDS = 5.0
"""Seconds to connect to one address; then the next address is tried."""
MAX_ADDRESSES = 6
"""Maximum number of addresses of a host to try."""
_LOOKUPS = 8
"""Concurrent name lookups of one job. A slow name server blocks only the threads of this job."""
_PROXY_TIMEOUTS = {"connect": 10.0, "read": 30.0, "write": 10.0}
_FETCH_TIMEOUTS = {"connect": 10.0, "read": 300.0, "write": 60.0, "pool": None}
_KEEP_ALIVE_SECONDS = 15.0
"""How long an idle connection is kept; short, because servers close idle connections too."""

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host name. Raises OSError when there are none."""


class Resolver:
    """Resolve names with the host's name service, in separate threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="sandbox-resolver")

    async def __call__(self, host: str) -> Sequence[Address]:
        """Return the addresses of a host name.

        Raises:
            OSError: the name has no address, or the name service does not answer.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            )
        return [ipaddress.ip_address(address[0]) for *_, address in found]

    def close(self) -> None:
        """Start no more lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Outside(httpcore.AsyncNetworkBackend):
    """The outgoing connections of one job. Close it with `aclose`.

    It is also the network backend of the connection pool for plain HTTP.
    """

    def __init__(self, policy: Policy, connection: ConnectionVariables, resolve: Resolve) -> None:
        self._policy = policy
        self._connection = connection
        self._resolve = resolve
        self._direct = _pool(network_backend=self)
        self._proxied: httpcore.AsyncConnectionPool | None = None

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._direct.aclose()
        if self._proxied is not None:
            await self._proxied.aclose()

    async def tunnel(self, host: str, port: int) -> httpcore.AsyncNetworkStream:
        """Connect to a host for a tunnel.

        Raises:
            Refused: it is not allowed, or cannot be reached.
        """
        proxy = self._connection.proxy_for("https", host, port)
        if proxy is None:
            return await self.connect_tcp(host, port)
        await self._admit_through_proxy(host, port)
        return await _tunnel_through(proxy, host, port)

    async def fetch(
        self, request: h11.Request, host: str, port: int, target: bytes, body: AsyncIterator[bytes]
    ) -> httpcore.Response:
        """Forward a plain HTTP request. The caller closes the response.

        Raises:
            Refused: the host is not allowed, or is unreachable.
            httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException: the server
                ended the response early.
        """
        proxy = self._connection.proxy_for("http", host, port)
        pool = self._direct
        if proxy is not None:
            await self._admit_through_proxy(host, port)
            pool = self._proxied = self._proxied or _pool(proxy=proxy)
        authority = _bracketed(host) if port == 80 else f"{_bracketed(host)}:{port}"
        return await pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme="http", host=_bracketed(host), port=port, target=target),
                headers=request_headers(request, authority.encode()),
                content=body if has_body(request) else None,
                extensions={"timeout": _FETCH_TIMEOUTS},
            )
        )

    async def connect_tcp(
        self, host: str, port: int, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        """Check the name and all its addresses, then connect to the first that answers.

        The name is resolved only once, so a changed answer has no effect (DNS rebinding).

        Raises:
            Refused: it is not allowed, or cannot be reached.
        """
        host = host.strip("[]")
        self._policy.check_target(host, port)
        try:
            addresses = await self._lookup(host)
        except OSError as error:
            raise Refused(502, f"{host} has no address: {_reason(error)}.", host) from error
        self._policy.check_addresses(host, port, addresses)
        try:
            return await connect_any(addresses, port)
        except OSError as error:
            message = f"{host} cannot be reached at port {port}: {_reason(error)}."
            raise Refused(502, message, host) from error

    async def _admit_through_proxy(self, host: str, port: int) -> None:
        """Check the name, and its addresses if it can be resolved here."""
        self._policy.check_target(host, port)
        try:
            addresses = await self._lookup(host)
        except OSError:
            self._policy.check_delegated(host, port)
        else:
            self._policy.check_addresses(host, port, addresses)

    async def _lookup(self, host: str) -> Sequence[Address]:
        address = literal(host)
        return [address] if address is not None else await self._resolve(host)


async def connect_any(addresses: Sequence[Address], port: int) -> SocketStream:
    """Connect to the first address that answers.

    Raises:
        OSError: none answers. It is the error of the last address.
    """
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for address in addresses[:MAX_ADDRESSES]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await _connect(address, port)
        except OSError as error:
            failure = error
    raise failure


def _pool(**how: Any) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS, **how
    )


async def _connect(address: Address, port: int) -> SocketStream:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connected, (str(address), port))
    except BaseException:
        connected.close()
        raise
    return SocketStream(connected)


async def _tunnel_through(
    proxy: httpcore.Proxy, host: str, port: int
) -> httpcore.AsyncNetworkStream:
    target = f"{_bracketed(host)}:{port}".encode()
    origin = proxy.url.origin
    connection = httpcore.AsyncHTTPConnection(origin, ssl_context=proxy.ssl_context)
    request = httpcore.Request(
        "CONNECT",
        httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target),
        headers=[(b"Host", target), *proxy.headers],
        extensions={"timeout": _PROXY_TIMEOUTS},
    )
    try:
        response = await connection.handle_async_request(request)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        raise Refused(502, f"The operator's proxy does not answer: {error}.", host) from error
    if 200 <= response.status < 300:
        stream: httpcore.AsyncNetworkStream = response.extensions["network_stream"]
        return stream
    await connection.aclose()
    message = f"The operator's proxy does not connect to {host}: it answers {response.status}."
    raise Refused(502, message, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    # asyncio includes the address in the text of a refused connection.
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno or 0).lower() if known else str(error.strerror).lower()
