from __future__ import annotations

import gc
import socket
import threading
import warnings
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from fakes.server import serving

TIMES = 40


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Clients:
    """Connect and send requests as fast as possible until they are stopped."""

    def __init__(self, url: str) -> None:
        self.connected: list[socket.socket] = []
        self._port = int(url.rpartition(":")[2])
        self.have_come = threading.Event()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._visit)
        self._thread.start()

    def _visit(self) -> None:
        while not self._leaving.wait(0.0003):
            with suppress(OSError):
                self.connected.append(socket.create_connection(("127.0.0.1", self._port), 1))
                self.connected[-1].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            if len(self.connected) > 3:
                self.have_come.set()

    def leave(self) -> None:
        self._leaving.set()
        self._thread.join()
        for each in self.connected:
            each.close()


def test_a_connection_accepted_during_the_stop_is_closed() -> None:
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(TIMES):
            with serving(hang, patience=0) as url:
                visitors = Clients(url)
                visitors.have_come.wait(10)
            visitors.leave()
        gc.collect()
    assert [str(warning.message) for warning in left_open] == []
