"""A worker and all services of an installation, for attacks: `python worker.py NAMED ABSTRACT`.

It has one secret in its environment and one in its memory. It serves an API that requires the
secret, Temporal and its UI without one, a service on loopback, a port as "the network", and unix
sockets with the two names. Prints its ports as one line of JSON, and ends with its input.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IN_MEMORY = "canary-memory-" + secrets.token_hex(16)
SETTINGS_FRAME = bytes(3) + b"\4" + bytes(5)
"""The first bytes of an HTTP/2 server."""


class Open(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        self.answer(200)

    def answer(self, status):
        body = f"{self.command} {self.path}".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Protected(Open):
    def answer(self, status):
        wanted = f"Bearer {os.environ['AGENT_API_SECRET']}"
        super().answer(status if self.headers.get("Authorization") == wanted else 401)


def serve_http(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def serve(listener, greeting):
    listener.listen()

    def greet():
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)

    threading.Thread(target=greet, daemon=True).start()
    return listener.getsockname()


def main(named, abstract):
    # With Yama, a process may trace this one only with permission.
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
    for address in (named, "\0" + abstract):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        serve(listener, b"canary-socket")
    ports = {
        "api_port": serve_http(Protected),
        "temporal_port": serve(socket.create_server(("127.0.0.1", 0)), SETTINGS_FRAME)[1],
        "temporal_ui_port": serve_http(Open),
        "loopback_port": serve_http(Open),
        "egress": serve(socket.create_server(("127.0.0.2", 0)), b"canary-network"),
    }
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
