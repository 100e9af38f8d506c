"""An MCP server with two tools, over stdio as a program, or over HTTP.

It implements only the tool calls of https://modelcontextprotocol.io/specification.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one request."""
    method = request["method"]
    if method == "initialize":
        version = request["params"]["protocolVersion"]
        info = {"name": "tickets", "version": "1"}
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        schema = {"type": "object", "properties": {"number": {"type": "integer"}}}
        tool = {"name": "find", "description": "Find a ticket.", "inputSchema": schema}
        note = {**tool, "name": "note", "description": "Note a ticket in a file."}
        return {"tools": [tool, note]}
    if method == "tools/call":
        number = request["params"]["arguments"]["number"]
        if request["params"]["name"] == "note":
            Path("ticket.txt").write_text(str(number))
        return {"content": [{"type": "text", "text": f"Ticket {number}: the logo is too small."}]}
    return {}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "id" not in request:
            self._respond(202, b"")
            return
        response = {"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}
        self._respond(200, json.dumps(response).encode())

    def do_GET(self) -> None:
        self._respond(405, b"")

    def log_message(self, *_: object) -> None:
        """Suppress the log on standard error."""

    def _respond(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serving_http() -> Iterator[str]:
    """Serve over HTTP on a free port of 127.0.0.1; yield the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp"
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve over stdio until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            response = {"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}
            print(json.dumps(response), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
