"""Connecting to a server that starts later, and registering search attributes."""

from __future__ import annotations

import asyncio
import platform
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client as TemporalClient
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from fakes.ports import free_ports
from temporal import client
from temporal.client import (
    SEARCH_ATTRIBUTES,
    connect,
    connect_with_retries,
    is_polling,
    register_search_attributes,
)

KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD


async def known(temporal: TemporalClient) -> dict[str, IndexedValueType.ValueType]:
    listed = await temporal.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal.namespace)
    )
    return dict(listed.custom_attributes)


async def test_connecting_waits_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_INTERVAL", timedelta(milliseconds=20))
    [port] = free_ports(1)
    connecting = asyncio.create_task(connect_with_retries(f"127.0.0.1:{port}", "default"))
    await asyncio.sleep(0.1)
    assert not connecting.done()
    program = str(Path(sys.executable).with_name("temporal"))
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=program, dev_server_log_level="error", port=port
    ):
        temporal = await asyncio.wait_for(connecting, 20)
        # One attribute exists already, as after an upgrade that adds attributes.
        first = {SEARCH_ATTRIBUTES[0].name: KEYWORD}
        await temporal.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace="default", search_attributes=first)
        )
        await register_search_attributes(temporal)
        await register_search_attributes(temporal)
        attributes = await known(temporal)
    assert {key.name: attributes.get(key.name) for key in SEARCH_ATTRIBUTES} == dict.fromkeys(
        (key.name for key in SEARCH_ATTRIBUTES), KEYWORD
    )


async def test_a_lazy_client_needs_no_server() -> None:
    temporal = await connect("127.0.0.1:1", "elsewhere", lazy=True)
    assert temporal.namespace == "elsewhere"


async def test_a_worker_of_this_host_is_reported_as_polling(temporal: TemporalClient) -> None:
    host = platform.node()
    address = temporal.service_client.config.target_host
    namesake = await connect(address, "default")
    assert not await is_polling(namesake, "polled", host)
    async with Worker(namesake, task_queue="polled", activities=[nothing]):
        async with asyncio.timeout(10):
            while not await is_polling(namesake, "polled", host):
                pass
        assert not await is_polling(namesake, "polled", f"not-{host}")


@activity.defn
async def nothing() -> None:
    """Do nothing."""
