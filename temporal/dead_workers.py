"""Telling Temporal at once what it would else learn from missing heartbeats: a process is dead.

A worker that starts knows which earlier ones of its machine were killed. Their jobs go on then, and
need not wait for `HEARTBEAT_TIMEOUT` first.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Collection

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetStickyTaskQueueRequest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionDescription
from temporalio.service import RPCError

from activities.interceptors.errors import application_error
from domain.errors import LeaseLost, OrchestratorError
from domain.jobs import JobState
from store.protocol import Store
from store.unfinished_jobs import unfinished_jobs
from workflows.steps import workflow_id

log = logging.getLogger(__name__)


def identity(boot_id: str) -> str:
    """Return what a worker process calls itself: `<boot id>@<host name>`."""
    return f"{boot_id}@{socket.gethostname()}"


async def report_dead(
    store: Store, temporal: TemporalClient, host_id: str, dead: Collection[str]
) -> None:
    """Give up, in their name, what dead processes of this machine were doing. Repeatable.

    Args:
        store: has the jobs.
        temporal: has their workflows.
        host_id: this machine.
        dead: boot ids.
    """
    if not dead:
        return
    identities = {identity(boot_id) for boot_id in dead}
    try:
        async for job in unfinished_jobs(store):
            if job.host == host_id:
                with contextlib.suppress(RPCError):
                    await _give_up(temporal, job, identities)
    except OrchestratorError as error:
        log.warning("Jobs of an earlier process go on when Temporal misses it: %s", error)


async def _give_up(temporal: TemporalClient, job: JobState, identities: Collection[str]) -> None:
    workflow = await temporal.get_workflow_handle(workflow_id(job.id)).describe()
    abandoned = [
        pending.activity_id
        for pending in workflow.raw_description.pending_activities
        if pending.last_worker_identity in identities
    ]
    if not abandoned:
        return
    log.info("Job %s goes on: the process that had it is dead", job.id)
    await _forget_cache(temporal, workflow)
    lost = application_error(LeaseLost("The process that did this is dead."))
    for activity_id in abandoned:
        # One that waits for its next attempt is not running, and ends with the lease.
        with contextlib.suppress(RPCError):
            await temporal.get_async_activity_handle(
                workflow_id=workflow.id, run_id=workflow.run_id, activity_id=activity_id
            ).fail(lost)


async def _forget_cache(temporal: TemporalClient, workflow: WorkflowExecutionDescription) -> None:
    """Do not wait until the dead process does not fetch what it alone has cached."""
    execution = WorkflowExecution(workflow_id=workflow.id, run_id=workflow.run_id)
    request = ResetStickyTaskQueueRequest(namespace=temporal.namespace, execution=execution)
    await temporal.workflow_service.reset_sticky_task_queue(request)
