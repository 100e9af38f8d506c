"""Heartbeats, sent from beside the work of every activity that has a heartbeat timeout."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

HEARTBEAT_INTERVAL = timedelta(seconds=1)
"""A tenth of the heartbeat timeout; also how soon an activity learns that it is cancelled."""


class HeartbeatInterceptor(Interceptor):
    """Beats every second while an activity runs, so that only a dead process falls silent."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap the chain."""
        return _Beating(next)


class _Beating(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if activity.info().heartbeat_timeout is None:
            return await super().execute_activity(input)
        beating = asyncio.create_task(_beat())
        try:
            return await super().execute_activity(input)
        finally:
            beating.cancel()


async def _beat() -> None:
    # Not at once: most activities are over before the first beat, and need none.
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL.total_seconds())
        activity.heartbeat()
