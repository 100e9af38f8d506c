"""Recognize the addresses of this host."""

from __future__ import annotations

import ipaddress
import socket

from domain.names.addresses import Address, is_public


def is_own(address: Address) -> bool:
    """Return whether an address is one of this host's; sends nothing.

    A connection to it would not pass the host's firewall, although the address may be public.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except OSError:  # There is no way to it, or no IPv6 here.
        return False


def is_outside(address: Address) -> bool:
    """Return whether an address is public and leads to another host."""
    return is_public(address) and not is_own(address)
