"""The worker process: its roles, task queues, slots and drain.

The role `flow` runs workflows and writes rows, on any host. The role `host` runs jobs on this host.
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
from host.salvage_records import SalvageRecords
from host.slots.credential_holds import Credential
from host.slots.fence import Fence
from host.slots.leases import Leases
from host.slots.slot_supplier import HostSlotSupplier
from host.sweeper import Sweeper
from sandbox.modes import Sandbox
from scm.github_pull_requests import GitHub
from settings import Settings
from store.protocol import Store
from store.retrying import retrying_store
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
from workspace.mirrors.gc import MirrorPacking
from workspace.publishing import Publishing
from workspace.salvage.salvage import Salvage

HEARTBEAT_THROTTLE = timedelta(seconds=1)
"""An activity learns of its cancellation with a heartbeat. By default the SDK delays heartbeats to
0.8 of the heartbeat timeout (measured: 3.4 s at 5 s)."""

STICKY_TIMEOUT = timedelta(seconds=2)
"""How long a workflow waits for the worker that has it cached. After that worker dies, another one
takes over in 7 s; with the default of 10 s it takes 14 s (measured)."""

HOST_ACTIVITIES_AT_ONCE = 200
"""Far more than a host's slots; these activities only wait for processes and the network."""

log = logging.getLogger(__name__)


class Role(StrEnum):
    """The roles of a worker process."""

    FLOW = "flow"
    HOST = "host"
    ALL = "all"


async def run_worker(
    settings: Settings, store: Store, temporal: TemporalClient, role: Role, stop: asyncio.Event
) -> None:
    """Poll until `stop` is set, then drain.

    A draining worker takes no new job, and running jobs have `drain_timeout` to finish. Remaining
    jobs are stopped, and another worker resumes them.
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
    """Poll for workflows and row writes, and run the reconciler."""
    publishing = Publishing(wiring.worktrees(settings))
    # Temporal retries these activities, and the reconciler runs every few seconds.
    once = store.without_retries()
    withdrawals = wiring.withdrawal_activities(settings, once, publishing)
    records = RecordActivities(once)
    reconciler = Reconciler(once, temporal, wiring.job_limits(settings))
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
    """Poll for jobs to run on this host."""
    boot = WorkerProcess(settings.host.data_dir / "boots")
    dead = boot.dead()
    for pid in kill_orphans(settings.host.data_id, boot.is_alive):
        log.warning("Killed process %s, which an earlier worker left behind", pid)
    task_queue = f"host-{settings.host.id}-{boot.id}"
    capacity = HostSlotSupplier(settings.jobs.max_concurrent)
    leases = Leases()
    sandbox = wiring.sandbox(settings)
    worktrees = wiring.worktrees(settings, sandbox.containment)
    removal = Removal(worktrees, Salvage(worktrees))
    keeping = SalvageRecords(store, settings.host.id)
    retention = Retention(store, Expiry(worktrees), settings.jobs.keep_work)
    sweeper = Sweeper(
        store,
        leases,
        removal,
        keeping,
        retention,
        MirrorPacking(worktrees),
        settings.host.sessions_dir,
    )
    credential = Credential(store, settings.credential_id)
    slots = SlotActivities(
        store, temporal, leases, capacity, credential, settings.host.id, task_queue
    )
    granting = _granting(settings, temporal, slots, boot, SLOTS_TASK_QUEUE, capacity)
    # Any number of jobs that return to this host wait here until a slot is free for them.
    returning = _granting(
        settings,
        temporal,
        slots,
        boot,
        slots_task_queue_of(settings.host.id),
        FixedSizeSlotSupplier(HOST_ACTIVITIES_AT_ONCE),
    )
    working = Worker(
        temporal,
        task_queue=task_queue,
        activities=_host_activities(
            settings,
            retrying_store(store),
            leases,
            slots,
            worktrees,
            removal,
            boot,
            credential,
            sandbox,
        ),
        max_concurrent_activities=HOST_ACTIVITIES_AT_ONCE,
        interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        identity=identity(boot.id),
    )
    reports = _reports(settings, store, boot, task_queue, credential, sandbox)
    await reports.replace_dead(dead)
    await report_dead(store, temporal, settings.host.id, dead)
    # The contexts end in reverse order. First the worker takes no new jobs, and running jobs finish
    # or are stopped. That needs activities on the host's own queue, so `working` ends later.
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
        SalvageRecords(store, settings.host.id),
        wiring.identity_of_commits(settings),
        sandbox,
        has_token=settings.github.token is not None,
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
    """Run workers that stop taking tasks at the same time."""
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
    """Return a worker that takes jobs from a queue, and lets its jobs finish at shutdown."""
    return Worker(
        temporal,
        task_queue=task_queue,
        activities=[slots.hold_slot],
        tuner=_slots_tuner(supplier),
        interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=settings.jobs.drain_timeout,
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
        settings.host.id,
        boot.id,
        task_queue,
        settings.jobs.max_concurrent,
        utc_now(),
        sandbox=sandbox.mode,
        sandbox_network=settings.sandbox.network_in_effect,
        credential_hidden=settings.hides_credential,
    )
    probe = wiring.claude_probe_setup(settings, boot.id, sandbox)
    return HostReports(store, host, probe, GitHub(wiring.github_client(settings)), credential)


@asynccontextmanager
async def _reporting(reports: HostReports, stop: asyncio.Event) -> AsyncIterator[None]:
    """Publish this process as the host's worker only while its queue is polled."""
    async with _in_background(reports.run_forever(), stop):
        yield
    await reports.remove()


@asynccontextmanager
async def _in_background(
    work: Coroutine[Any, Any, None], stop: asyncio.Event
) -> AsyncIterator[None]:
    """Run `work` during the body and cancel it at the end. If it fails, the worker stops."""
    asyncio_task = asyncio.create_task(work)
    asyncio_task.add_done_callback(lambda done: stop.set())
    try:
        yield
    finally:
        asyncio_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio_task
