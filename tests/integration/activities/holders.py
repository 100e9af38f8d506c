"""Jobs that get slots from a real worker, through a minimal workflow."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio import workflow
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import FixedSizeSlotSupplier, UnsandboxedWorkflowRunner, Worker

from activities.interceptors.errors import ErrorInterceptor, current_lease
from activities.interceptors.heartbeats import HeartbeatInterceptor
from activities.slots import (
    GRANT_SIGNAL,
    HoldSlotInput,
    ReleaseSlotInput,
    SlotActivities,
    SlotGrant,
    slots_task_queue_of,
)
from domain.jobs import Job
from host.slots.credential_holds import Credential
from host.slots.leases import Lease, LeaseKey, Leases
from host.slots.slot_supplier import HostSlotSupplier
from store.protocol import Store
from tests.integration.workflows.server import eventually
from worker import HEARTBEAT_THROTTLE, _drained_together, _slots_tuner
from workflows import policies
from workflows.activity_calls import perform

ASKING_TASK_QUEUE = "asking"
CREDENTIAL = "c0ffee"

# The policy of jobs, except that the workflow always waits for the end of the activity.
HOLD_TO_THE_END = replace(
    policies.HOLD_SLOT,
    cancellation=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)


@dataclass(frozen=True)
class Ask:
    """The request of a job, and the task queue that it goes to."""

    request: HoldSlotInput
    task_queue: str


@dataclass(frozen=True)
class Ended:
    """How the activity ended: `released` or the type of its error, and the lease in the error."""

    kind: str
    present: int = 0


@workflow.defn
class AskForSlot:
    """Holds a slot until the activity ends."""

    def __init__(self) -> None:
        self._grants: list[SlotGrant] = []

    @workflow.signal(name=GRANT_SIGNAL)
    def slot_granted(self, grant: SlotGrant) -> None:
        self._grants.append(grant)

    @workflow.query
    def grants(self) -> list[SlotGrant]:
        return self._grants

    @workflow.run
    async def run(self, ask: Ask) -> Ended:
        try:
            await perform(SlotActivities.hold_slot, ask.request, ask.task_queue, HOLD_TO_THE_END)
        except ActivityError as error:
            kind = error.cause.type if isinstance(error.cause, ApplicationError) else None
            return Ended(kind or type(error.cause).__name__, current_lease(error))
        return Ended("released")


class WatchedLeases(Leases):
    """Leases that record their order and the maximum number at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []
        self.most_at_once = 0

    def take(self, key: LeaseKey) -> Lease:
        lease = super().take(key)
        self.taken.append(key.job_id)
        self.most_at_once = max(self.most_at_once, len(self.job_ids))
        return lease


class SlotHost:
    """The slots of a host with a real worker, which takes jobs during `poll`."""

    def __init__(self, temporal: TemporalClient, store: Store, slots: int) -> None:
        self.temporal = temporal
        self.host_id = f"mill-{uuid.uuid4().hex}"
        self.task_queue = f"slots-{uuid.uuid4().hex}"
        self.own_task_queue = slots_task_queue_of(self.host_id)
        self.host_queue = f"host-{uuid.uuid4().hex}"
        self.leases = WatchedLeases()
        self.capacity = HostSlotSupplier(slots)
        self.credential = Credential(store, CREDENTIAL)
        self.activities = SlotActivities(
            store,
            temporal,
            self.leases,
            self.capacity,
            self.credential,
            self.host_id,
            self.host_queue,
        )

    @contextlib.asynccontextmanager
    async def poll(self, grace: timedelta = timedelta(0)) -> AsyncIterator[Worker]:
        worker = self._worker(self.task_queue, self.capacity, grace)
        returning = self._worker(self.own_task_queue, FixedSizeSlotSupplier(20), grace)
        async with _drained_together(worker, returning):
            yield worker

    def _worker(
        self, task_queue: str, supplier: HostSlotSupplier | FixedSizeSlotSupplier, grace: timedelta
    ) -> Worker:
        return Worker(
            self.temporal,
            task_queue=task_queue,
            activities=[self.activities.hold_slot],
            tuner=_slots_tuner(supplier),
            interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
            max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
            graceful_shutdown_timeout=grace,
        )

    async def ask(
        self,
        job: Job,
        lease: int = 1,
        *,
        returning: bool = False,
        needs_claude: bool = True,
        host_claude_finished_on: str | None = None,
    ) -> WorkflowHandle[AskForSlot, Ended]:
        """Start a workflow that asks for a slot."""
        task_queue = self.own_task_queue if returning else self.task_queue
        return await self.temporal.start_workflow(
            AskForSlot.run,
            Ask(
                HoldSlotInput(LeaseKey(job.id, lease), needs_claude, host_claude_finished_on),
                task_queue,
            ),
            id=f"asks-{job.id}-{lease}-{uuid.uuid4().hex}",
            task_queue=ASKING_TASK_QUEUE,
        )

    async def ask_in_order(self, *jobs: Job) -> list[WorkflowHandle[AskForSlot, Ended]]:
        """Start workflows so that Temporal's queue has them in this order."""
        handles = []
        for job in jobs:
            handle = await self.ask(job)
            await asyncio.wait_for(_has_asked(handle), 20)
            handles.append(handle)
        return handles

    async def release(self, job: Job, lease: int = 1) -> None:
        await self.activities.release_slot(ReleaseSlotInput(LeaseKey(job.id, lease)))

    async def until_held(self, *jobs: Job) -> None:
        """Wait until exactly these jobs hold a slot."""
        wanted = {job.id for job in jobs}
        await eventually(lambda: self.leases.job_ids == wanted, what=f"held: {wanted}")


async def _has_asked(handle: WorkflowHandle[AskForSlot, Ended]) -> None:
    while not (await handle.describe()).raw_description.pending_activities:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def asking(temporal: TemporalClient) -> AsyncIterator[None]:
    """Run a worker for the workflows."""
    worker = Worker(
        temporal,
        task_queue=ASKING_TASK_QUEUE,
        workflows=[AskForSlot],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        yield
