"""Copy bytes between two connections until both directions have ended."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from typing import Any

import httpcore

CHUNK = 128 * 1024
"""Maximum number of buffered bytes for each direction."""

_RESET = struct.pack("ii", 1, 0)


class SocketStream(httpcore.AsyncNetworkStream):
    """A connected, non-blocking socket as an httpcore stream.

    It buffers no bytes between calls. A relay with asyncio's own streams needs twice the processor
    time (measured).
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return some bytes; empty when the other side has closed its direction."""
        try:
            async with asyncio.timeout(timeout):
                return await self._loop.sock_recv(self._socket, max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("it sent nothing for too long") from error
        except OSError as error:
            raise httpcore.ReadError(error.strerror) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        try:
            async with asyncio.timeout(timeout):
                await self._loop.sock_sendall(self._socket, buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout("it received nothing for too long") from error
        except OSError as error:
            raise httpcore.WriteError(error.strerror) from error

    async def aclose(self) -> None:
        """Close it."""
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Return the `socket`, or whether it `is_readable`; None for other names."""
        if info == "socket":
            return self._socket
        if info == "is_readable":
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return None


async def relay(one: httpcore.AsyncNetworkStream, other: httpcore.AsyncNetworkStream) -> None:
    """Copy in both directions until both have ended or one has failed; then close both."""
    try:
        async with asyncio.TaskGroup() as directions:
            directions.create_task(_copy(one, other))
            directions.create_task(_copy(other, one))
    except* (httpcore.NetworkError, httpcore.TimeoutException, OSError):
        # Otherwise a truncated answer could look complete.
        for stream in (one, other):
            reset_when_closed(stream.get_extra_info("socket"))
    finally:
        await one.aclose()
        await other.aclose()


async def _copy(source: httpcore.AsyncNetworkStream, sink: httpcore.AsyncNetworkStream) -> None:
    while data := await source.read(CHUNK):
        await sink.write(data)
    if sink.get_extra_info("ssl_object") is not None:
        # TLS to the operator's proxy cannot close one direction only.
        raise httpcore.WriteError("the tunnel was ended")
    sink.get_extra_info("socket").shutdown(socket.SHUT_WR)


def reset_when_closed(connected: socket.socket) -> None:
    """Make closing the connection send a reset instead of an orderly end."""
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
