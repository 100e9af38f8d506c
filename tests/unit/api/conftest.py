"""An application and a store for each test, and one Temporal server for all."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from temporalio.client import Client as TemporalClient
from temporalio.testing import WorkflowEnvironment

from api.app import create_app
from api.http import idempotency
from store.protocol import Store
from store.sqlite.store import SqliteStore
from temporal import job_commands
from temporal.client import connect, register_search_attributes
from temporal.job_commands import Dispatch
from temporal.start_job import JobLimits
from tests.unit.api.calls import SECRET, Api
from tests.unit.api.contract import Contract
from tests.unit.api.live import Live, running_live
from tests.unit.api.wire import Wire, connection, running_server

LIMITS = JobLimits(timedelta(hours=1), timedelta(hours=1), timedelta(hours=1))
NAMESPACES = ("parked", "live")
"""`parked` has no worker, so workflows do not advance there."""

MakeApi = Callable[[Store, Path, TemporalClient], Api]


@pytest.fixture(scope="session")
async def temporal_address() -> AsyncIterator[str]:
    namespaces = [part for name in NAMESPACES for part in ("--namespace", name)]
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).with_name("temporal")),
        dev_server_log_level="error",
        dev_server_extra_args=namespaces,
    ) as environment:
        yield environment.client.service_client.config.target_host


@pytest.fixture(scope="session")
async def parked(temporal_address: str) -> TemporalClient:
    """A client of a namespace without a worker."""
    temporal = await connect(temporal_address, "parked")
    await register_search_attributes(temporal)
    return temporal


@pytest.fixture(scope="session")
async def nowhere() -> TemporalClient:
    """A client of an unreachable Temporal. It connects at its first call."""
    return await connect("127.0.0.1:1", "default", lazy=True)


@pytest.fixture(scope="session")
def warm_app() -> FastAPI:
    """An application whose dependencies each test replaces. Building its routes takes 40 ms."""
    return _app(None, None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def contract(warm_app: FastAPI) -> Contract:
    return Contract(warm_app.openapi())


@pytest.fixture(scope="session")
def make_api(contract: Contract) -> MakeApi:
    def make(store: Store, path: Path, temporal: TemporalClient) -> Api:
        return Api(_app(store, temporal), store, path, contract)

    return make


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with _opened(tmp_path) as store:
        yield store


@pytest.fixture
def api(
    store: SqliteStore,
    tmp_path: Path,
    parked: TemporalClient,
    warm_app: FastAPI,
    contract: Contract,
    monkeypatch: pytest.MonkeyPatch,
) -> Api:
    """The API with a Temporal that starts workflows, but without workers."""
    monkeypatch.setattr(job_commands, "CANCEL_WAIT", timedelta(milliseconds=20))
    warm_app.state.dependencies = _app(store, parked).state.dependencies
    return Api(warm_app, store, _file(tmp_path), contract)


@pytest.fixture
def without_temporal(
    store: SqliteStore, tmp_path: Path, nowhere: TemporalClient, make_api: MakeApi
) -> Api:
    """The API with an unreachable Temporal."""
    return make_api(store, _file(tmp_path), nowhere)


@pytest.fixture(scope="session")
async def _working(
    temporal_address: str, make_api: MakeApi, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Live]:
    directory: Path = tmp_path_factory.mktemp("live")
    temporal = await connect(temporal_address, "live")
    await register_search_attributes(temporal)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_opened(directory))
        api = make_api(store, _file(directory), temporal)
        yield await stack.enter_async_context(running_live(api, temporal))


@pytest.fixture
async def live(_working: Live) -> AsyncIterator[Live]:
    """The API with real workflows, and a fake git and Claude."""
    await _working.api.report_host(task_queue=_working.task_queue)
    yield _working
    await _working.end_all()


@asynccontextmanager
async def _opened(directory: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(_file(directory), busy_seconds=0.5)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _file(directory: Path) -> Path:
    return directory / "orchestrator.db"


def _app(store: Store, temporal: TemporalClient) -> FastAPI:
    return create_app(store, Dispatch(temporal, LIMITS), SECRET, "https://github.test")


@pytest.fixture
async def port(api: Api) -> AsyncIterator[int]:
    """The port of a server that runs the API."""
    async with running_server(api.app) as port:
        yield port


@pytest.fixture
async def wire(port: int) -> AsyncIterator[Wire]:
    async with connection(port) as wire:
        yield wire


@pytest.fixture
def immediate_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated request takes over the work of the first one at once."""
    monkeypatch.setattr(idempotency, "TAKEN_OVER_AFTER", timedelta(0))
