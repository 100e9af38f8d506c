"""Holding a slot of a host: the activity that is a job's slot, and the activities that end it.

`hold_slot` runs on the shared `slots` task queue for as long as the job needs the host. A signal
gives the workflow the task queue of this process. All other work of the job on this host goes
through that queue and carries the lease.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from domain.errors import DependencyUnavailable, JobEnded, LeaseLost
from domain.jobs import LIVE, JobState, JobStatus, Phase
from domain.timestamps import utc_now
from host.slots.admission import SlotQueue
from host.slots.credential_holds import Credential
from host.slots.leases import Lease, LeaseKey, Leases
from host.slots.slot_supplier import HostSlotSupplier
from store.protocol import Guard, JobChanges, Store

SLOTS_TASK_QUEUE = "slots"
GRANT_SIGNAL = "slot_granted"


def slots_task_queue_of(host_id: str) -> str:
    """Return the queue of the jobs that want a slot of this one host."""
    return f"slots-{host_id}"


@dataclass(frozen=True, slots=True)
class HoldSlotInput:
    """The lease that a job asks for.

    `needs_claude`: whether the job still needs Claude. It does not on the host
    `host_claude_finished_on`, which has all of its work.
    """

    lease: LeaseKey
    needs_claude: bool
    host_claude_finished_on: str | None


@dataclass(frozen=True, slots=True)
class ReleaseSlotInput:
    """The lease to end."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class StopWorkInput:
    """The lease whose work is stopped."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class SlotGrant:
    """A granted slot: the lease's number, the host, and the task queue of its process."""

    lease: int
    host_id: str
    task_queue: str


class SlotActivities:
    """Slots of this host."""

    def __init__(
        self,
        store: Store,
        temporal: TemporalClient,
        leases: Leases,
        capacity: HostSlotSupplier,
        credential: Credential,
        host_id: str,
        host_task_queue: str,
    ) -> None:
        self._store = store
        self._temporal = temporal
        self._leases = leases
        self._capacity = capacity
        self._host_id = host_id
        self._host_task_queue = host_task_queue
        self._queue = SlotQueue(store, capacity, credential)

    @activity.defn
    async def hold_slot(self, request: HoldSlotInput) -> None:
        """Hold one of this host's slots until `release_slot`.

        When this is cancelled (by the workflow, a lost heartbeat or the end of the process),
        everything that runs under the lease is stopped first.

        Raises:
            JobEnded: the job has a final status.
            LeaseLost: the job has a later lease, or this host lost its connection.
        """
        key = request.lease
        returned = activity.info().task_queue == slots_task_queue_of(self._host_id)
        needs_claude = request.needs_claude and request.host_claude_finished_on != self._host_id
        await self._live_job(key.job_id)
        await self._queue.take_slot(key.job_id, returned=returned, needs_claude=needs_claude)
        try:
            await self._record_grant(key)
            await self._hold(key)
        finally:
            self._capacity.give_slot_back(returned=returned)

    @activity.defn
    async def release_slot(self, request: ReleaseSlotInput) -> None:
        """End a lease. Idempotent; a lease that is not held is already released."""
        lease = self._leases.find(request.lease)
        if lease is not None:
            lease.released = True
            await lease.stop()
            self._leases.drop(lease)

    @activity.defn
    async def stop_work(self, request: StopWorkInput) -> None:
        """Stop everything that runs under a lease and wait until it is gone. Idempotent.

        The lease is still held afterwards, so that the job can clean up.
        """
        lease = self._leases.find(request.lease)
        if lease is not None:
            await lease.stop()

    async def _record_grant(self, key: LeaseKey) -> None:
        job = await self._live_job(key.job_id)
        changes: JobChanges = {
            "status": JobStatus.RUNNING,
            "phase": Phase.PREPARING,
            "lease": key.number,
            "host": self._host_id,
            "resumes_at": None,
            "started_at": job.started_at or utc_now(),
        }
        granted = await self._store.update_job(
            key.job_id, changes, Guard(LIVE, lease_below=key.number)
        )
        if not granted:
            current = (await self._live_job(key.job_id)).lease
            raise LeaseLost("The job was granted another slot.", current)

    async def _live_job(self, job_id: str) -> JobState:
        details = await self._store.get_job_state(job_id)
        if details is None or not details.job.is_live:
            raise JobEnded("The job has ended.")
        return details.job

    async def _hold(self, key: LeaseKey) -> None:
        earlier = self._leases.of(key.job_id)
        if earlier is not None:
            # This process may not know yet that the earlier lease is over. Two leases must not
            # work in one worktree.
            await self._end(earlier)
        lease = self._leases.take(key)
        try:
            await self._signal_grant(key)
            await lease.ended.wait()
        finally:
            await self._end(lease)
        if not lease.released:
            raise LeaseLost("The host lost its connection and gave the job up.")

    async def _end(self, lease: Lease) -> None:
        await asyncio.shield(lease.stop())
        self._leases.drop(lease)

    async def _signal_grant(self, key: LeaseKey) -> None:
        info = activity.info()
        handle = self._temporal.get_workflow_handle(
            info.workflow_id or "", run_id=info.workflow_run_id
        )
        grant = SlotGrant(key.number, self._host_id, self._host_task_queue)
        try:
            await handle.signal(GRANT_SIGNAL, grant)
        except RPCError as error:
            raise DependencyUnavailable(
                "Temporal did not accept the signal that grants a slot. The job asks for another.",
                "temporal",
            ) from error
