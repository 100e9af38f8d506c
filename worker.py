"""The worker process: which queues it polls, how many slots it has, and how it ends.

Roles: `flow` decides (workflows) and writes rows, on any machine; `host` runs jobs on this machine;
`all` does both in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Any

from temporalio.client import Client as TemporalClient
from temporalio.worker import CustomSlotSupplier, FixedSizeSlotSupplier, Worker, WorkerTuner

import wiring
from activities.claude import ClaudeActivities
from activities.interceptors.errors import ErrorInterceptor
from activities.interceptors.heartbeats import HeartbeatInterceptor
from activities.job_records import RECORDS_TASK_QUEUE, RecordActivities
from activities.slots import SLOTS_TASK_QUEUE, SlotActivities, slots_task_queue_of
from activities.workspaces import WorkspaceActivities
from agent.process.orphans import kill_orphans
from domain.hosts import Host
from domain.timestamps import utc_now
from host.process_lock import WorkerProcess
from host.reports import HostReports
from host.retention import Retention
from host.salvage_records import Keeping
from host.slots.credential_holds import Credential
from host.slots.fence import Fence
from host.slots.leases import Leases
from host.slots.slot_supplier import Capacity
from host.sweeper import Sweeper
from sandbox.modes import Sandbox
from settings import Settings
from store.protocol import Store
from store.retrying import patient
from temporal.client import register_search_attributes
from temporal.dead_workers import identity, report_dead
from temporal.reconciler import Reconciler
from workflows.code_job import CodeJobWorkflow
from workflows.steps import JOBS_TASK_QUEUE
from workflows.sync_repositories import SyncRepositoriesWorkflow
from workflows.task_job import TaskJobWorkflow
from workspace.lifecycle.expiry import Expiry
from workspace.lifecycle.removal import Removal
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.gc import Upkeep
from workspace.publishing import Publishing
from workspace.salvage.salvage import Salvage

HEARTBEAT_THROTTLE = timedelta(seconds=1)
"""Cancellation reaches an activity with its heartbeats; by default those are held back to 0.8 of
the heartbeat timeout (measured: 3.4 s at 5 s)."""

STICKY_TIMEOUT = timedelta(seconds=2)
"""How long a workflow waits for the worker that has it cached; after its death another takes over
in 7 s with this and in 14 s with the default of 10 s (measured)."""

HOST_ACTIVITIES_AT_ONCE = 200
"""Far more than a machine's slots; these only wait for processes and the network."""

log = logging.getLogger(__name__)


class Role(StrEnum):
    """What a worker process does."""

    FLOW = "flow"
    HOST = "host"
    ALL = "all"


async def run_worker(
    settings: Settings, store: Store, temporal: TemporalClient, role: Role, stop: asyncio.Event
) -> None:
    """Work until `stop` is set, then drain.

    At the end no new job is taken, and those that run have `drain_timeout` to finish; what is left
    is stopped and taken up by another worker.
    """
    await register_search_attributes(temporal)
    async with contextlib.AsyncExitStack() as stack:
        if role in {Role.FLOW, Role.ALL}:
            await stack.enter_async_context(_flow(settings, store, temporal, stop))
        if role in {Role.HOST, Role.ALL}:
            await stack.enter_async_context(_host(settings, store, temporal, stop))
        log.info("Worker ready: %s", role)
        await stop.wait()
        log.info("Worker draining")


@asynccontextmanager
async def _flow(
    settings: Settings, store: Store, temporal: TemporalClient, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Poll for workflows and row writes, and reconcile."""
    publishing = Publishing(wiring.worktrees(settings))
    withdrawals = wiring.withdrawal_activities(settings, store, publishing)
    records = RecordActivities(store)
    reconciler = Reconciler(store, temporal, wiring.job_limits(settings))
    deciding = Worker(
        temporal,
        task_queue=JOBS_TASK_QUEUE,
        workflows=[CodeJobWorkflow, TaskJobWorkflow, SyncRepositoriesWorkflow],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
    )
    recording = Worker(
        temporal,
        task_queue=RECORDS_TASK_QUEUE,
        activities=[
            records.enqueue_turn,
            records.requeue,
            records.wait_for_user,
            records.wait_for_limit,
            records.end_limit_wait,
            records.finish_job,
            records.accept_message,
            records.record_completion,
            records.list_host_queues,
            records.find_host_queue,
            records.forget_workspace,
            withdrawals.withdraw,
        ],
        interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
    )
    async with recording, deciding, _in_background(reconciler.run_forever(), stop):
        yield


@asynccontextmanager
async def _host(
    settings: Settings, store: Store, temporal: TemporalClient, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Poll for jobs to run on this machine."""
    boot = WorkerProcess(settings.data_dir / "boots")
    dead = boot.dead()
    for pid in kill_orphans(settings.data_id, boot.is_alive):
        log.warning("Ended process %s, which an earlier worker had left", pid)
    task_queue = f"host-{settings.host_id}-{boot.id}"
    capacity = Capacity(settings.max_concurrent_jobs)
    leases = Leases()
    sandbox = wiring.sandbox(settings)
    worktrees = wiring.worktrees(settings, sandbox.containment)
    removal = Removal(worktrees, Salvage(worktrees))
    keeping = Keeping(store, settings.host_id)
    retention = Retention(store, Expiry(worktrees), settings.keep_work)
    sweeper = Sweeper(
        store, leases, removal, keeping, retention, Upkeep(worktrees), settings.sessions_dir
    )
    credential = Credential(store, settings.credential_id)
    slots = SlotActivities(
        store, temporal, leases, capacity, credential, settings.host_id, task_queue
    )
    granting = _granting(settings, temporal, slots, boot, SLOTS_TASK_QUEUE, capacity)
    # Jobs that return to this machine wait here, however many, until a slot is free for them.
    returning = _granting(
        settings,
        temporal,
        slots,
        boot,
        slots_task_queue_of(settings.host_id),
        FixedSizeSlotSupplier(HOST_ACTIVITIES_AT_ONCE),
    )
    working = Worker(
        temporal,
        task_queue=task_queue,
        activities=_host_activities(
            settings, patient(store), leases, slots, worktrees, removal, boot, credential, sandbox
        ),
        max_concurrent_activities=HOST_ACTIVITIES_AT_ONCE,
        interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        identity=identity(boot.id),
    )
    reports = _reports(settings, store, boot, task_queue, credential, sandbox)
    await reports.succeed(dead)
    await report_dead(store, temporal, settings.host_id, dead)
    # Left in the opposite order: first no new jobs are taken, and those that run finish or are
    # stopped, which needs the host's own queue to be polled until the last of them has ended.
    try:
        async with (
            _in_background(sweeper.run_forever(), stop),
            _in_background(Fence(temporal, leases).run_forever(), stop),
            working,
            _reporting(reports, stop),
            _drained_together(granting, returning),
        ):
            yield
    finally:
        await reports.remove()
        boot.end()


def _host_activities(
    settings: Settings,
    store: Store,
    leases: Leases,
    slots: SlotActivities,
    worktrees: Worktrees,
    removal: Removal,
    boot: WorkerProcess,
    credential: Credential,
    sandbox: Sandbox,
) -> list[Callable[..., Any]]:
    publishing = Publishing(worktrees)
    workspaces = WorkspaceActivities(
        store,
        leases,
        worktrees,
        publishing,
        removal,
        Keeping(store, settings.host_id),
        wiring.identity_of_commits(settings),
        sandbox,
        has_token=settings.github_token is not None,
    )
    claude = ClaudeActivities(
        store, leases, worktrees, credential, wiring.claude_setup(settings, boot.id, sandbox)
    )
    pull_requests = wiring.pull_request_activities(settings, store, leases, publishing)
    return [
        slots.release_slot,
        slots.stop_work,
        workspaces.prepare,
        workspaces.publish,
        workspaces.verify_unchanged,
        workspaces.clean_up,
        workspaces.fetch_mirror,
        claude.run_claude,
        claude.deliver_message,
        pull_requests.open_pull_request,
    ]


@asynccontextmanager
async def _drained_together(*workers: Worker) -> AsyncIterator[None]:
    """Poll with workers that stop taking tasks at the same moment."""
    async with contextlib.AsyncExitStack() as stack:
        for each in workers:
            await stack.enter_async_context(each)
        try:
            yield
        finally:
            await asyncio.gather(*(each.shutdown() for each in workers))


def _granting(
    settings: Settings,
    temporal: TemporalClient,
    slots: SlotActivities,
    boot: WorkerProcess,
    task_queue: str,
    supplier: CustomSlotSupplier | FixedSizeSlotSupplier,
) -> Worker:
    """Return a worker that takes jobs from a queue, and at its end lets those it has finish."""
    return Worker(
        temporal,
        task_queue=task_queue,
        activities=[slots.hold_slot],
        tuner=_slots_tuner(supplier),
        interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=settings.drain_timeout,
        identity=identity(boot.id),
    )


def _slots_tuner(supplier: CustomSlotSupplier | FixedSizeSlotSupplier) -> WorkerTuner:
    unused = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=unused,
        activity_supplier=supplier,
        local_activity_supplier=unused,
        nexus_supplier=unused,
    )


def _reports(
    settings: Settings,
    store: Store,
    boot: WorkerProcess,
    task_queue: str,
    credential: Credential,
    sandbox: Sandbox,
) -> HostReports:
    host = Host(
        settings.host_id,
        boot.id,
        task_queue,
        settings.max_concurrent_jobs,
        utc_now(),
        sandbox=sandbox.mode,
        sandbox_network=settings.network_of_jobs,
        credential_hidden=settings.hides_credential,
    )
    probe = wiring.claude_probe_setup(settings, boot.id, sandbox)
    user = wiring.github_access(settings).user
    return HostReports(store, host, probe, user, credential)


@asynccontextmanager
async def _reporting(reports: HostReports, stop: asyncio.Event) -> AsyncIterator[None]:
    """Be known as the process to ask on this machine, only as long as its queue is polled."""
    async with _in_background(reports.run_forever(), stop):
        yield
    await reports.remove()


@asynccontextmanager
async def _in_background(
    work: Coroutine[Any, Any, None], stop: asyncio.Event
) -> AsyncIterator[None]:
    """Run `work` beside the body, cancelled at the end; if it fails, so does the worker."""
    asyncio_task = asyncio.create_task(work)
    asyncio_task.add_done_callback(lambda done: stop.set())
    try:
        yield
    finally:
        asyncio_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio_task
