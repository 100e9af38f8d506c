"""A TCP connection that can be cut as a network is: nobody is told, and nothing arrives."""

from __future__ import annotations

import contextlib
import socket
import threading

CHUNK = 65536


class Wire:
    """Leads from a port of its own to a server, until it is closed.

    What is sent while it is cut arrives when it is mended, as TCP would deliver it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """host:port of the near end."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        """Let everything go; the threads end with their connections."""
        self.mend()
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
                    threading.Thread(target=self._lead, args=(source, target), daemon=True).start()

    def _lead(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
