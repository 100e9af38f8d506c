"""Free ports for servers that run as separate processes."""

from __future__ import annotations

import itertools
import random
import socket

_CANDIDATES = range(10_000, 32_768)
"""Below the ports that Linux uses for outgoing connections: 32768 to 60999 by default
(ip_local_port_range, ip(7)). A connection could take a port in that range before the server starts
or while it restarts."""

_claims: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Choose ports of 127.0.0.1 that no server listens on.

    Other callers, in this or another process, get different ports until this process ends.

    Raises:
        OSError: there are not enough free ports.
    """
    shuffled = random.sample(_CANDIDATES, len(_CANDIDATES))
    ports = list(itertools.islice(filter(_claim, filter(_is_free, shuffled)), count))
    if len(ports) == count:
        return ports
    first, last = _CANDIDATES[0], _CANDIDATES[-1]
    raise OSError(f"Fewer than {count} ports from {first} to {last} are free.")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _claim(port: int) -> bool:
    # A name in the abstract namespace (unix(7)) has no file and disappears with the process.
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0orchestrator-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True
