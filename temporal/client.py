"""Connecting to Temporal, and registering the search attributes of the workflows."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, timedelta

from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client as TemporalClient
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from domain.timestamps import utc_now
from workflows.steps import CLIENT_ID, JOB_STATUS, JOB_TYPE, REPOSITORY

CONNECT_INTERVAL = timedelta(seconds=1)
POLLED_WITHIN = timedelta(minutes=3)
"""Longer than a long poll, which Temporal reports up to a minute after it began."""

SEARCH_ATTRIBUTES = (JOB_STATUS, JOB_TYPE, CLIENT_ID, REPOSITORY)

log = logging.getLogger(__name__)


async def connect(address: str, namespace: str, *, lazy: bool = False) -> TemporalClient:
    """Return a client of the server at `address` (host:port).

    TLS and API keys come from Temporal's own environment variables and profile, which
    `temporalio.envconfig` reads. With `lazy`, the first call makes the connection.
    """
    config = ClientConfig.load_client_connect_config()
    config["target_host"] = address
    config["namespace"] = namespace
    return await TemporalClient.connect(**config, lazy=lazy)


async def connect_with_retries(address: str, namespace: str) -> TemporalClient:
    """Return a client. Retry until the server answers, and log each failure."""
    while True:
        try:
            return await connect(address, namespace)
        except RuntimeError as error:
            log.warning("Temporal at %s does not answer yet: %s", address, error)
            await asyncio.sleep(CONNECT_INTERVAL.total_seconds())


async def is_polling(temporal: TemporalClient, task_queue: str, hostname: str) -> bool:
    """Return whether a worker on `hostname` has polled a task queue recently.

    The identity of a worker is `<id>@<host name>`.
    """
    request = DescribeTaskQueueRequest(
        namespace=temporal.namespace, task_queue=TaskQueue(name=task_queue)
    )
    request.task_queue_type = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    described = await temporal.workflow_service.describe_task_queue(request)
    oldest = utc_now() - POLLED_WITHIN
    return any(
        poller.identity.endswith(f"@{hostname}")
        and poller.last_access_time.ToDatetime(UTC) > oldest
        for poller in described.pollers
    )


async def register_search_attributes(temporal: TemporalClient) -> None:
    """Add the search attributes to the namespace. Idempotent."""
    request = AddSearchAttributesRequest(
        namespace=temporal.namespace,
        search_attributes={
            key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in SEARCH_ATTRIBUTES
        },
    )
    try:
        await temporal.operator_service.add_search_attributes(request)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
