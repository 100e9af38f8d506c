"""Slow down and log clients that guess the secret."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from ipaddress import ip_network

from api.http.log_throttle import LogThrottle
from domain.names.http_hosts import plain_address

INTERVAL_SECONDS = 0.1
"""Between two answers to wrong secrets from one address, over all its connections."""

MAX_WAIT_SECONDS = 10.0
"""Longest wait of one answer, however often the address tries."""

MAX_ADDRESSES = 1024
"""Number of addresses that are remembered, about 100 KiB. The oldest is forgotten first."""

log = logging.getLogger(__name__)
log.addFilter(LogThrottle())


class WrongSecrets:
    """Delays the answers to wrong secrets, one after the other. Correct secrets never wait."""

    def __init__(self) -> None:
        self._next_answers: OrderedDict[str, float] = OrderedDict()

    async def wait(self, address: str) -> None:
        """Wait until a wrong secret from this address may be answered."""
        log.warning("A request from %s had a wrong API secret", address)
        now = asyncio.get_running_loop().time()
        network = _network(address)
        earliest = self._next_answers.pop(network, now)
        answer_at = min(max(earliest, now) + INTERVAL_SECONDS, now + MAX_WAIT_SECONDS)
        self._next_answers[network] = answer_at
        if len(self._next_answers) > MAX_ADDRESSES:
            self._next_answers.popitem(last=False)
        await asyncio.sleep(answer_at - now)


def _network(address: str) -> str:
    # A client can use every address of its IPv6 network, usually a /64.
    try:
        plain = plain_address(address)
        return str(ip_network(f"{plain}/64", strict=False)) if ":" in plain else plain
    except ValueError:
        return address
