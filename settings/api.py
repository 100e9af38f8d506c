"""Settings of the HTTP API."""

from __future__ import annotations

from typing import Annotated

from domain.names.http_hosts import HttpHost, parse_http_host
from settings.fields import Group, Port, Secret, Text, listed, names, parsed, setting


def _hosts(text: str) -> tuple[HttpHost, ...]:
    hosts = {entry: parse_http_host(entry) for entry in names(text)}
    wrong = [entry for entry, host in hosts.items() if host is None]
    if wrong:
        raise ValueError(
            f"has {listed(wrong)}. Use host names or IP addresses, each with or without a port, "
            "such as api.example.com or [2001:db8::1]:8443."
        )
    return tuple(host for host in hosts.values() if host is not None)


class ApiSettings(Group):
    """The address of the API, and the secret of its callers."""

    title = "The API"

    port: Port = setting("PORT", "3456", "Port of the API")
    bind_address: Text = setting(
        "BIND_ADDRESS",
        "127.0.0.1",
        "Address that the API listens on; `0.0.0.0` or `::` for all addresses of the host",
    )
    hosts: Annotated[tuple[HttpHost, ...], parsed(_hosts)] = setting(
        "API_HOSTS",
        "",
        "Further host names of the API, separated by commas: `NAME` or `NAME:PORT`",
    )
    secret: Secret = setting(
        "AGENT_API_SECRET",
        None,
        "Bearer token of the callers",
        shown="made and kept in `DATA_DIR`",
    )
