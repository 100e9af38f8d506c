"""A Temporal dev server for tests, as `orchestrator up` starts it but in memory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from temporalio.client import Client as TemporalClient
from temporalio.testing import WorkflowEnvironment

from workflows.connection import register_search_attributes

ONE_PARTITION = (
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    "matching.enableFairness=true",
)


@contextlib.asynccontextmanager
async def dev_server() -> AsyncIterator[TemporalClient]:
    """A client of a server of its own; clients call themselves `test` in every history."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).with_name("temporal")),
        dev_server_log_level="error",
        dev_server_extra_args=[
            part for value in ONE_PARTITION for part in ("--dynamic-config-value", value)
        ],
        identity="test",
    ) as environment:
        await register_search_attributes(environment.client)
        yield environment.client


async def eventually(reached: Callable[[], bool], seconds: float = 20.0, what: str = "") -> None:
    """Wait until something is so; it must be within the time."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or reached}"
        await asyncio.sleep(0.01)
