"""A Temporal server that can be frozen and killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from temporalio.client import Client as TemporalClient

from fakes.ports import free_ports
from temporal.client import connect_with_retries


class TemporalProcess:
    """A running dev server, in memory."""

    def __init__(self) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        command = [str(Path(sys.executable).with_name("temporal")), "server", "start-dev"]
        options = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "never"]
        self._popen = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)

    def freeze(self) -> None:
        self._popen.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


@contextlib.asynccontextmanager
async def temporal_process() -> AsyncIterator[tuple[TemporalProcess, TemporalClient]]:
    process = TemporalProcess()
    try:
        yield process, await connect_with_retries(process.address, "default")
    finally:
        process.kill()
