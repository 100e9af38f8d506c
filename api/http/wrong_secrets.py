"""Slows down and logs clients that try secrets."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from ipaddress import ip_network

from api.http.repeated_lines import RepeatedLines
from domain.names.http_hosts import plain_address

STEP_SECONDS = 0.1
"""Between two answers to wrong secrets of one address, however many connections it uses."""

LONGEST_SECONDS = 10.0
"""What one answer may wait; an address that asks faster still gets this many seconds each."""

MAX_ADDRESSES = 1024
"""How many addresses are remembered, the latest first: some 100 KiB."""

log = logging.getLogger(__name__)
log.addFilter(RepeatedLines())


class WrongSecrets:
    """Makes each answer to a wrong secret wait for those before it. Right secrets never wait."""

    def __init__(self) -> None:
        self._next_answers: OrderedDict[str, float] = OrderedDict()

    async def wait(self, address: str) -> None:
        """Return when a request of this address that had a wrong secret may be answered."""
        log.warning("A request from %s had a wrong API secret", address)
        now = asyncio.get_running_loop().time()
        network = _network(address)
        after = self._next_answers.pop(network, now)
        answer_at = min(max(after, now) + STEP_SECONDS, now + LONGEST_SECONDS)
        self._next_answers[network] = answer_at
        if len(self._next_answers) > MAX_ADDRESSES:
            self._next_answers.popitem(last=False)
        await asyncio.sleep(answer_at - now)


def _network(address: str) -> str:
    """Return what one client can choose its address from: a whole /64 of IPv6."""
    try:
        plain = plain_address(address)
        return str(ip_network(f"{plain}/64", strict=False)) if ":" in plain else plain
    except ValueError:
        return address
