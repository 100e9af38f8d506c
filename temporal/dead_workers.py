"""Reporting dead workers to Temporal, which otherwise notices their missing heartbeats later.

A worker that starts knows which earlier workers of its host were killed. It fails their activities,
so that their jobs resume without waiting for `HEARTBEAT_TIMEOUT`.
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
    """Return the Temporal identity of a worker process: `<boot id>@<host name>`."""
    return f"{boot_id}@{socket.gethostname()}"


async def report_dead(
    store: Store, temporal: TemporalClient, host_id: str, dead: Collection[str]
) -> None:
    """Fail the activities that dead processes of this host were running. Idempotent.

    Args:
        store: has the jobs.
        temporal: has their workflows.
        host_id: this host.
        dead: the boot ids of the dead processes.
    """
    if not dead:
        return
    identities = {identity(boot_id) for boot_id in dead}
    try:
        async for job in unfinished_jobs(store):
            if job.host == host_id:
                with contextlib.suppress(RPCError):
                    await _fail_activities(temporal, job, identities)
    except OrchestratorError as error:
        log.warning("Jobs of an earlier process resume only after its heartbeat timeout: %s", error)


async def _fail_activities(
    temporal: TemporalClient, job: JobState, identities: Collection[str]
) -> None:
    workflow = await temporal.get_workflow_handle(workflow_id(job.id)).describe()
    abandoned = [
        pending.activity_id
        for pending in workflow.raw_description.pending_activities
        if pending.last_worker_identity in identities
    ]
    if not abandoned:
        return
    log.info("Job %s resumes: its worker process is dead", job.id)
    await _reset_sticky_queue(temporal, workflow)
    lost = application_error(LeaseLost("The worker process is dead."))
    for activity_id in abandoned:
        # An activity that waits for its next attempt cannot be failed. It ends with the lease.
        with contextlib.suppress(RPCError):
            await temporal.get_async_activity_handle(
                workflow_id=workflow.id, run_id=workflow.run_id, activity_id=activity_id
            ).fail(lost)


async def _reset_sticky_queue(
    temporal: TemporalClient, workflow: WorkflowExecutionDescription
) -> None:
    """Reset the sticky queue so the next workflow task does not wait for the dead worker."""
    execution = WorkflowExecution(workflow_id=workflow.id, run_id=workflow.run_id)
    request = ResetStickyTaskQueueRequest(namespace=temporal.namespace, execution=execution)
    await temporal.workflow_service.reset_sticky_task_queue(request)
