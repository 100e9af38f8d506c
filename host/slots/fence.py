"""Give up the leases of this host when Temporal is unreachable.

After the heartbeat timeout, Temporal gives the jobs of a silent host to another host. A host that
is cut off must stop its jobs before that, or two Claude processes would work on one job.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from temporalio.client import Client as TemporalClient

from host.loops import run_every
from host.slots.leases import Leases

CHECK_INTERVAL = timedelta(seconds=1)
"""Short compared with `CUT_OFF_AFTER`; also the timeout of a check."""

CUT_OFF_AFTER = timedelta(seconds=3)
"""Noticing it takes up to two more seconds, and stopping an unresponsive Claude up to five: the sum
is below the heartbeat timeout. A restart of Temporal takes 2 s (measured) and must stop no job."""

log = logging.getLogger(__name__)


class Fence:
    """Watches the connection to Temporal."""

    def __init__(self, temporal: TemporalClient, leases: Leases) -> None:
        self._temporal = temporal
        self._leases = leases
        self._now = asyncio.get_running_loop().time
        self._reached_at = self._now()

    async def run_forever(self) -> None:
        """Check until cancelled; stop all jobs when the checks have failed for too long."""
        self._reached_at = self._now()
        await run_every(CHECK_INTERVAL, self._check, name="The check of Temporal")

    async def _check(self) -> None:
        if await self._is_reachable():
            self._reached_at = self._now()
        elif self._now() - self._reached_at > CUT_OFF_AFTER.total_seconds():
            await self._give_up()

    async def _is_reachable(self) -> bool:
        try:
            return await self._temporal.service_client.check_health(timeout=CHECK_INTERVAL)
        except Exception:  # noqa: BLE001
            # An unknown error counts too: stopping the jobs is the safe side.
            return False

    async def _give_up(self) -> None:
        if self._leases.job_ids:
            log.warning("Temporal is unreachable: stopping the jobs of this host")
            await self._leases.end_all()
