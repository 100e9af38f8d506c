"""Parse the servers of an MCP_CONFIG file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domain.configuration.mcp_servers import McpServer, read_servers


def server(**entry: Any) -> McpServer:
    [parsed] = read_servers(json.dumps({"mcpServers": {"one": entry}}))
    return parsed


def test_the_files_of_a_command_are_its_absolute_paths():
    parsed = server(
        command="/srv/tickets/bin/serve",
        args=[
            "--data=/srv/data/../tickets.db",
            "relative/x",
            "-v",
            "/srv/t",
            "a=/srv/no",
            "/srv/t",
        ],
    )
    assert parsed.files == (
        Path("/srv/tickets/bin/serve"),
        Path("/srv/tickets.db"),
        Path("/srv/t"),
    )
    assert parsed.address is None


@pytest.mark.parametrize("path", ["/dev/null", "/proc/1", "/proc/../dev", "/sys", "/x/${HOME}"])
def test_sandbox_paths_and_variables_are_not_files(path: str):
    assert server(command="npx", args=[path]).files == ()


@pytest.mark.parametrize(
    ("url", "address", "is_on_loopback"),
    [
        ("http://localhost:8080/mcp", ("localhost", 8080), True),
        ("http://127.0.0.1/mcp", ("127.0.0.1", 80), True),
        ("https://[::1]:9/", ("::1", 9), True),
        ("https://MCP.example.com/x", ("mcp.example.com", 443), False),
        ("http://10.0.0.7:81/sse", ("10.0.0.7", 81), False),
        ("https://${HOST}/mcp", None, False),
        ("http://host:99999/", None, False),
        ("tickets", None, False),
    ],
)
def test_the_address_of_a_url(url: str, address: tuple[str, int] | None, is_on_loopback: bool):
    parsed = server(type="http", url=url)
    assert (parsed.address, parsed.is_on_loopback) == (address, is_on_loopback)


@pytest.mark.parametrize(
    "entry",
    [3, {"command": 3}, {"command": "npx", "args": 3}, {"command": "npx", "args": [3]}, {"url": 3}],
)
def test_an_invalid_entry_is_refused(entry: object):
    with pytest.raises(ValueError, match=r"mcp\.json"):
        read_servers(json.dumps({"mcpServers": {"one": entry}}))
