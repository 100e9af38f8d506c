"""Hosts in HTTP syntax: the `Host` header, the host of an `Origin`, and API_HOSTS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

_FORM = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]{1,40})\]|(?P<name>[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class HttpHost:
    """A host name in lower case, or an IP address without brackets. `port` may be None."""

    name: str
    port: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether it is a loopback address or `localhost`."""
        try:
            return ip_address(self.name).is_loopback
        except ValueError:
            return self.name == "localhost"


def parse_http_host(text: str) -> HttpHost | None:
    """Return the host, or None if `text` is not `NAME`, `NAME:PORT`, `[IPV6]` or `[IPV6]:PORT`."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65_535:
        return None
    if match["ipv6"] is None:
        return HttpHost(match["name"].lower().removesuffix("."), port)
    try:
        return HttpHost(plain_address(match["ipv6"]), port)
    except ValueError:
        return None


def plain_address(text: str) -> str:
    """Return an IP address in its shortest form. ::ffff:1.2.3.4 becomes IPv4.

    Raises:
        ValueError: `text` is not an IP address.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
