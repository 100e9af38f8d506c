"""Sends heartbeats in the background of every activity that has a heartbeat timeout."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

HEARTBEAT_INTERVAL = timedelta(seconds=1)
"""A tenth of the heartbeat timeout. An activity learns of its cancellation with a heartbeat."""


class HeartbeatInterceptor(Interceptor):
    """Sends a heartbeat every second, so that only a dead process misses them."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap an activity's calls."""
        return _WithHeartbeats(next)


class _WithHeartbeats(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if activity.info().heartbeat_timeout is None:
            return await super().execute_activity(input)
        heartbeats = asyncio.create_task(_send_heartbeats())
        try:
            return await super().execute_activity(input)
        finally:
            heartbeats.cancel()


async def _send_heartbeats() -> None:
    # Sleep first: most activities end within a second and need no heartbeat.
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL.total_seconds())
        activity.heartbeat()
