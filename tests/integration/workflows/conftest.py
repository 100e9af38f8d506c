"""One Temporal server and one set of workers for all workflow tests of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client as TemporalClient

from tests.integration.workflows.harness import Harness, running_harness
from tests.integration.workflows.server import dev_server


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[TemporalClient]:
    async with dev_server() as client:
        yield client


@pytest.fixture(scope="session")
async def workers(temporal: TemporalClient) -> AsyncIterator[Harness]:
    async with running_harness(temporal) as harness:
        yield harness


@pytest.fixture
async def harness(workers: Harness) -> AsyncIterator[Harness]:
    yield workers
    await workers.end_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow the SDK's warning about activities that ended before their cancellation arrived."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Cannot find activity to cancel"))
