"""Ports for servers that are started as processes of their own."""

from __future__ import annotations

import itertools
import random
import socket

_CANDIDATES = range(10_000, 32_768)
"""Below the ports that Linux gives to outgoing connections, 32768 to 60999 unless set otherwise
(ip_local_port_range, ip(7)): from among those, a connection may take the port of a server that has
yet to start, or is just being started again."""

_claims: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Choose ports of 127.0.0.1 that nothing listens on.

    Whoever else asks here, in this process or another, is given other ones until this process ends.

    Raises:
        OSError: so many are not free.
    """
    shuffled = random.sample(_CANDIDATES, len(_CANDIDATES))
    ports = list(itertools.islice(filter(_claim, filter(_is_free, shuffled)), count))
    if len(ports) == count:
        return ports
    raise OSError(f"{count} ports from {_CANDIDATES[0]} to {_CANDIDATES[-1]} are not free.")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _claim(port: int) -> bool:
    # A name without a file (the abstract namespace of unix(7)), which goes with the process.
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0orchestrator-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True
