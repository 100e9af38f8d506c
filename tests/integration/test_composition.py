"""Objects built from the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.gateway import PORT
from sandbox.proxy.policy import Refused
from settings import Settings, SettingsError
from wiring import gateway, mcp_addresses


def settings_with(directory: Path, *urls: str, **variables: str) -> Settings:
    config = directory / "mcp.json"
    servers = {f"server-{number}": {"url": url} for number, url in enumerate(urls)}
    config.write_text(json.dumps({"mcpServers": servers}))
    return Settings.from_env({"HOME": "/home/user", "MCP_CONFIG": str(config), **variables})


def test_mcp_servers_on_this_host_are_forwarded_and_others_exempt(tmp_path: Path):
    settings = settings_with(
        tmp_path, "http://localhost:8080/mcp", "https://mcp.internal/", "http://10.0.0.7:81/sse"
    )
    forwards, exempt = mcp_addresses(settings)
    assert forwards == {8080: ("localhost", 8080)}
    assert exempt == {("mcp.internal", 443), ("10.0.0.7", 81)}


@pytest.mark.parametrize("network", ["none", "hosts", "internet"])
def test_an_mcp_server_is_reachable_in_every_network_mode(tmp_path: Path, network: str):
    made = gateway(settings_with(tmp_path, "http://10.0.0.7:81/", SANDBOX_NETWORK=network))
    assert made is not None
    made.policy.check_target("10.0.0.7", 81)
    with pytest.raises(Refused):
        made.policy.check_target("10.0.0.8", 81)


def test_the_port_of_the_proxy_cannot_be_forwarded(tmp_path: Path):
    with pytest.raises(SettingsError, match="server-0 is on port 3128"):
        mcp_addresses(settings_with(tmp_path, f"http://localhost:{PORT}/"))
