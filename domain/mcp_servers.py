"""The servers of an MCP_CONFIG file: their names, the files they need, and their addresses."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from domain.names.addresses import parse_host

_USUAL_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_OWN_TREES = (Path("/dev"), Path("/proc"), Path("/sys"))
"""A sandbox has these of its own, or none."""


@dataclass(frozen=True, slots=True)
class McpServer:
    """One server: a program that the CLI starts, or a URL that it connects to.

    Args:
        name: as Claude spells it in the names of the server's tools.
        command: the program and its arguments; empty for a server with a URL.
        url: of a server that runs already.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The absolute paths in the command, those of `--option=/path` too.

        Paths of which a sandbox has its own are left out, such as /dev/null.
        """
        paths = dict.fromkeys(_absolute_paths(self.command))
        return tuple(path for path in paths if not any(map(path.is_relative_to, _OWN_TREES)))

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the URL; None without one, or where the CLI is to fill in a part."""
        try:
            url = urlsplit(self.url or "")
            port = url.port or _USUAL_PORTS[url.scheme]
            return parse_host(url.hostname or ""), port
        except (ValueError, KeyError):
            return None

    @property
    def is_on_loopback(self) -> bool:
        """Whether the URL leads to the host of the worker itself."""
        host = self.address[0] if self.address else ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


def read_servers(text: str) -> tuple[McpServer, ...]:
    """Read the text of an MCP_CONFIG file.

    Raises:
        ValueError: it does not have the form of Claude's `mcp.json`.
    """
    try:
        return tuple(_server(name, entry) for name, entry in json.loads(text)["mcpServers"].items())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not of the form of mcp.json") from error


def _server(name: str, entry: dict[str, Any]) -> McpServer:
    program = entry.get("command")
    command = () if program is None else (program, *entry.get("args", ()))
    url = entry.get("url")
    if not all(isinstance(text, str) for text in (*command, url or "")):
        raise TypeError(name)
    return McpServer(re.sub(r"[^A-Za-z0-9_-]", "_", name), command, url)


def _absolute_paths(command: tuple[str, ...]) -> Iterator[Path]:
    for word in command:
        option, mark, value = word.partition("=")
        text = value if mark and option.startswith("-") else word
        # The CLI puts variables in place of ${NAME}, and only it knows their values.
        if text.startswith("/") and "${" not in text and "\0" not in text:
            yield Path(os.path.normpath(text))
