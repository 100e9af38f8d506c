"""One Temporal server, one set of workers for all of a process's workflow tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client as TemporalClient

from tests.integration.workflows.lab import Lab, running_lab
from tests.integration.workflows.server import dev_server


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[TemporalClient]:
    async with dev_server() as client:
        yield client


@pytest.fixture(scope="session")
async def workers(temporal: TemporalClient) -> AsyncIterator[Lab]:
    async with running_lab(temporal) as lab:
        yield lab


@pytest.fixture
async def lab(workers: Lab) -> AsyncIterator[Lab]:
    yield workers
    await workers.end_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the SDK say that an activity had ended before its cancellation arrived."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Cannot find activity to cancel"))
