"""Giving up this machine's leases when Temporal can no longer be reached.

Temporal gives a silent machine's jobs to another after the heartbeat timeout. A machine that is cut
off must have stopped them by then, or two Claudes would work on one job.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from host.slots.leases import Leases

CHECK_INTERVAL = timedelta(seconds=1)
CUT_OFF_AFTER = timedelta(seconds=3)
"""It is noticed up to two seconds later, and ending a Claude that resists takes up to five: all of
it within the heartbeat timeout. A restart of Temporal takes 2 s (measured) and costs no job."""

log = logging.getLogger(__name__)


class Fence:
    """Watches the way to Temporal."""

    def __init__(self, temporal: TemporalClient, leases: Leases) -> None:
        self._temporal = temporal
        self._leases = leases

    async def run_forever(self) -> None:
        """Check every second; stop everything when it has failed for too long."""
        clock = asyncio.get_running_loop().time
        reached_at = clock()
        while True:
            if await self._is_reachable():
                reached_at = clock()
            elif clock() - reached_at > CUT_OFF_AFTER.total_seconds():
                await self._give_up()
            await asyncio.sleep(CHECK_INTERVAL.total_seconds())

    async def _is_reachable(self) -> bool:
        try:
            return await self._temporal.service_client.check_health(timeout=CHECK_INTERVAL)
        except (RPCError, RuntimeError):
            return False

    async def _give_up(self) -> None:
        if self._leases.job_ids:
            log.warning("Temporal is out of reach: stopping the jobs of this machine")
            await self._leases.end_all()
