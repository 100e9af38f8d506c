"""An in-memory Temporal dev server for tests."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from temporal.client import register_search_attributes

SERVER_SETTINGS = (
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    "matching.enableFairness=true",
    # By default, timers and retries fire up to a second late, and after a short burst every step
    # of a workflow waits 40 ms (both measured).
    'history.timerProcessorMaxTimeShift="10ms"',
    "history.timerProcessorMaxPollRPS=1000",
    "history.transferProcessorMaxPollRPS=1000",
)


@contextlib.asynccontextmanager
async def dev_server(*settings: str) -> AsyncIterator[TemporalClient]:
    """Return a client of a new server. The client's identity in histories is `test`."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).with_name("temporal")),
        dev_server_log_level="error",
        dev_server_extra_args=[
            part
            for value in (*SERVER_SETTINGS, *settings)
            for part in ("--dynamic-config-value", value)
        ],
        identity="test",
    ) as environment:
        await register_search_attributes(environment.client)
        yield environment.client


async def eventually(reached: Callable[[], bool], seconds: float = 20.0, what: str = "") -> None:
    """Wait until `reached` returns true. Fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or reached}"
        await asyncio.sleep(0.01)


async def reached(
    handle: WorkflowHandle[Any, Any], event: EventType.ValueType, times: int = 1
) -> None:
    """Wait until a workflow's history has `times` events of this type."""
    deadline = time.monotonic() + 20
    while True:
        history = await handle.fetch_history()
        if [each.event_type for each in history.events].count(event) >= times:
            return
        assert time.monotonic() < deadline, f"{EventType.Name(event)} was not reached"
        await asyncio.sleep(0.02)
