"""A command for the supervisor, and the worker's end of the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.supervision import supervisor
from sandbox.supervision.limits import Limits

_MAX_SOCKETS = 16


@dataclass(frozen=True, slots=True)
class Supervised:
    """A command for the supervisor.

    Args:
        command: an absolute path and its arguments.
        ports: where sockets listen inside; None for a command that is not bwrap.
        limits: apply to the command and all its descendants.
        disk: a directory on the disk that the command writes to.
    """

    command: Sequence[str]
    ports: Sequence[int] | None = None
    limits: Limits = field(default_factory=Limits)
    disk: Path = Path("/")

    def command_line(self, control: int, keep: int | None = None) -> list[str]:
        """Return the command line of the supervisor.

        Args:
            control: the descriptor of the supervisor's end of the control socket.
            keep: a descriptor that the command inherits.
        """
        ports = "-" if self.ports is None else ",".join(map(str, self.ports))
        return [
            *(sys.executable, "-I", "-S", supervisor.__file__),
            *(str(control), str(-1 if keep is None else keep)),
            *(ports, self.limits.to_text(), str(self.disk)),
            *("--", *self.command),
        ]


class Control:
    """The worker's end of the control socket of one supervisor. Needs a running event loop.

    Attributes:
        gone: set when the supervisor has ended.
        limit: a sentence about the exceeded limit, if the command is stopped for one.
        has_no_sandbox: whether bwrap failed, so that the command was not started.
    """

    def __init__(self, end: socket.socket) -> None:
        self.gone = asyncio.Event()
        self.limit: str | None = None
        self.has_no_sandbox = False
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Future[list[socket.socket]] = self._loop.create_future()
        self._partial = b""
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._receive)

    async def listening(self) -> list[socket.socket]:
        """Wait for the sockets that listen inside. Empty if the supervisor ends first."""
        return await asyncio.shield(self._listening)

    def ask_to_stop(self, grace: float) -> None:
        """Make the supervisor end the command within `grace` seconds. Idempotent."""
        with contextlib.suppress(OSError):
            self._end.send(f"{grace}\n".encode())

    def close(self) -> None:
        """Let go of the socket; the supervisor stops the command then. Idempotent."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()
        self._end_listening([])
        self.gone.set()

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, 4096, _MAX_SOCKETS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._handle(line.decode("utf-8", "replace"), sockets)
        if not data:
            self.close()

    def _handle(self, line: str, sockets: list[socket.socket]) -> None:
        if line == "listening":
            self._end_listening(sockets)
        elif line == "no sandbox":
            self.has_no_sandbox = True
        elif line.startswith("limit "):
            self.limit = line.removeprefix("limit ")

    def _end_listening(self, sockets: list[socket.socket]) -> None:
        if self._listening.done():
            for each in sockets:
                each.close()
        else:
            self._listening.set_result(sockets)
