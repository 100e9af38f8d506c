"""Host names and addresses: their canonical spelling, and which addresses are public."""

from __future__ import annotations

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
# inet_aton parses names with such an end as addresses: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\Z")
_AUTHORITY = re.compile(
    r"(?P<host>\[[^\[\]@/?#]*\]|[^\[\]:@/?#]*)(?::(?P<port>[1-9][0-9]{0,4}))?\Z"
)

# The special-purpose registries of IANA, and 168.63.129.16, the address of Azure's host agent.
_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32",
        "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
        "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Teredo is in the first network, and 6to4 is the third. Both embed an IPv4 address, and neither is
# in use any more.
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_host(text: str) -> str:
    """Return the canonical spelling of a host name or IP address: lower case, no final dot.

    Brackets around an IPv6 address are removed.

    Raises:
        ValueError: it is neither. Numbers that only some programs parse as an address, zone ids,
            and names with non-ASCII letters are refused too.
    """
    name = text.lower().removesuffix(".")
    bracketed = name.startswith("[") and name.endswith("]")
    address = literal(name[1:-1] if bracketed else name)
    if address is not None and (address.version == 6 or not bracketed):
        return str(address)
    # The lower case of some non-ASCII letters is an ASCII letter.
    if not text.isascii() or not _NAME.match(name) or _NUMERIC_END.match(name):
        raise ValueError(f"{_shown(text)} is not a host name or an IP address.")
    return name


def parse_authority(text: str) -> tuple[str, int | None]:
    """Split `host` or `host:port` into the canonical host and the port.

    Raises:
        ValueError: it has another form.
    """
    match = _AUTHORITY.match(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port or 0) > 65535:
        raise ValueError(f"{_shown(text)} is not a host, or a host with a port.")
    return parse_host(match["host"]), port


def literal(host: str) -> Address | None:
    """Parse a canonical host as an address; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if _has_zone(address) else address


def is_public(address: Address) -> bool:
    """Return whether an address, in any notation, belongs to the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if _has_zone(address):
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_UNICAST and not any(address in net for net in _NOT_PUBLIC_V6)


def _has_zone(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None


def _shown(text: str) -> str:
    """Return a text from the job for use in a message: printable ASCII, shortened."""
    return ascii(text[:80])
