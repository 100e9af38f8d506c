"""Real parts for the tests of activities, with a fake GitHub and a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from temporalio.client import Client as TemporalClient

from fakes.anthropic.server import ScriptedModel
from fakes.github.server import FakeGitHub, TokenGrant
from store.protocol import Store
from store.sqlite.store import SqliteStore
from tests.integration.activities.conversations import Conversations
from tests.integration.activities.holders import SlotHost, asking
from tests.integration.activities.worker_host import (
    FILES,
    GATEWAYS,
    NAME,
    OWNER,
    READ_ONLY,
    TOKEN,
    WorkerHost,
)
from tests.integration.workflows.server import dev_server
from tests.unit.store.samples import World, new_world


@pytest.fixture(autouse=True)
async def closed_gateways() -> AsyncIterator[None]:
    """Close the connections that a gateway keeps for its next request."""
    yield
    while GATEWAYS:
        await GATEWAYS.pop().aclose()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = SqliteStore(tmp_path / "store" / "orchestrator.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def world(store: Store) -> World:
    return await new_world(store)


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[TemporalClient]:
    async with dev_server() as client:
        yield client


@pytest.fixture(scope="session")
async def askers(temporal: TemporalClient) -> AsyncIterator[TemporalClient]:
    async with asking(temporal):
        yield temporal


@pytest.fixture
async def slot_host(askers: TemporalClient, store: Store) -> SlotHost:
    """A host with two slots, whose worker does not poll yet."""
    return SlotHost(askers, store, slots=2)


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[FakeGitHub]:
    """A fake GitHub with the repository of the client."""
    grants = {TOKEN: TokenGrant("bot"), READ_ONLY: TokenGrant("reader", "read")}
    served = FakeGitHub(tmp_path / "forge", grants)
    with served.serve():
        served.create_repository(OWNER, NAME, FILES)
        yield served


@pytest.fixture
def host(tmp_path: Path, world: World, forge: FakeGitHub) -> WorkerHost:
    return WorkerHost(tmp_path / "host", world, forge)


@pytest.fixture(scope="session")
def scripted_model() -> Iterator[ScriptedModel]:
    with ScriptedModel().serve() as model:
        yield model


@pytest.fixture
def conversations(
    tmp_path: Path, world: World, forge: FakeGitHub, scripted_model: ScriptedModel
) -> Conversations:
    return Conversations(tmp_path, world, forge, scripted_model)
