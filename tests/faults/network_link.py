"""A TCP proxy that can fail like a network: without an error, and without any data."""

from __future__ import annotations

import contextlib
import socket
import threading

CHUNK = 65536


class NetworkLink:
    """Forwards a local port to a server until it is closed.

    Data sent during a cut arrives after `restore`, as TCP would deliver it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._connected = threading.Event()
        self._connected.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """The local `host:port`."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        self._connected.clear()

    def restore(self) -> None:
        self._connected.set()

    def close(self) -> None:
        """Close all connections, which also ends the threads."""
        self.restore()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(self._server)
                self._sockets += (near, far)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._connected.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
