"""Parse an MCP_CONFIG file: the names, required files and addresses of its servers."""

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
"""Directories that a sandbox does not share with the host."""


@dataclass(frozen=True, slots=True)
class McpServer:
    """A program that the CLI starts, or a URL that it connects to.

    Args:
        name: as in the names of the server's tools.
        command: the program and its arguments; empty for a server with a URL.
        url: of a server that is already running.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The absolute paths in the command, also in `--option=/path`.

        Paths that every sandbox has, such as /dev/null, are omitted.
        """
        paths = dict.fromkeys(_absolute_paths(self.command))
        return tuple(path for path in paths if not any(map(path.is_relative_to, _OWN_TREES)))

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the URL; None without a URL or if the CLI fills in a part of it."""
        try:
            url = urlsplit(self.url or "")
            port = url.port or _USUAL_PORTS[url.scheme]
            return parse_host(url.hostname or ""), port
        except (ValueError, KeyError):
            return None

    @property
    def is_on_loopback(self) -> bool:
        """Whether the URL refers to the host of the worker."""
        host = self.address[0] if self.address else ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


def read_servers(text: str) -> tuple[McpServer, ...]:
    """Read the text of an MCP_CONFIG file.

    Raises:
        ValueError: the text is not valid for Claude's `mcp.json`.
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
        # The CLI replaces ${NAME} by a variable that is unknown here.
        if text.startswith("/") and "${" not in text and "\0" not in text:
            yield Path(os.path.normpath(text))
