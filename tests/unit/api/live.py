"""The real workflows, records and slots, with a fake git and Claude."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus
from temporalio.worker import Worker

from activities.claude import (
    DeliverMessageInput,
    DeliverMessageResult,
    RunClaudeInput,
    RunClaudeResult,
)
from activities.interceptors.errors import ErrorInterceptor
from activities.interceptors.heartbeats import HeartbeatInterceptor
from activities.job_records import RECORDS_TASK_QUEUE, RecordActivities
from activities.slots import SLOTS_TASK_QUEUE, SlotActivities
from activities.workspaces import (
    CleanUpInput,
    FetchMirrorInput,
    FetchMirrorResult,
    PrepareInput,
    PrepareResult,
    PublishInput,
    PublishResult,
    VerifyUnchangedInput,
)
from domain.job_details import JobFilter
from domain.jobs import FINAL, Phase
from host.job_progress import Progress
from host.slots.credential_holds import Credential
from host.slots.leases import Leases
from host.slots.slot_supplier import HostSlotSupplier
from store.protocol import Guard, Store
from tests.unit.api.calls import Api
from tests.unit.api.contract import Json
from workflows.code_job import CodeJobWorkflow
from workflows.steps import JOBS_TASK_QUEUE
from workflows.sync_repositories import SyncRepositoriesWorkflow
from workflows.task_job import TaskJobWorkflow

Activity = Callable[..., Any]

HEARTBEAT_THROTTLE = timedelta(milliseconds=200)

HOLD = "[[hold]]"
"""A prompt with this text holds its turn until `Live.let_go`, or until the job ends."""

MISSING = "missing"
"""A repository with this name cannot be fetched."""


class FakeHost:
    """Claude and git on one host."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store = store
        self._leases = leases
        self._progress = Progress(store)
        self.let_go: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.turns: dict[str, list[list[str]]] = defaultdict(list)

    @activity.defn
    async def prepare(self, request: PrepareInput) -> PrepareResult:
        return PrepareResult("0" * 40, False, existed=True)

    @activity.defn
    async def run_claude(self, request: RunClaudeInput) -> RunClaudeResult:
        job_id = request.lease.job_id
        details = await self._store.get_job(job_id)
        assert details is not None
        self.turns[job_id].append(request.message_ids)
        await self._progress.enter(request.lease, Phase.WORKING)
        if HOLD in details.job.prompt:
            await self._leases.require(request.lease).run(self.let_go[job_id].wait())
        return RunClaudeResult([])

    @activity.defn
    async def deliver_message(self, request: DeliverMessageInput) -> DeliverMessageResult:
        return DeliverMessageResult(delivered=False)

    @activity.defn
    async def verify_unchanged(self, request: VerifyUnchangedInput) -> None:
        return

    @activity.defn
    async def publish(self, request: PublishInput) -> PublishResult:
        return PublishResult(None)

    @activity.defn
    async def clean_up(self, request: CleanUpInput) -> None:
        await self._store.update_job(request.job_id, {"phase": None}, Guard(FINAL))

    @activity.defn
    async def fetch_mirror(self, request: FetchMirrorInput) -> FetchMirrorResult:
        repository = await self._store.get_repository(request.repository_id)
        assert repository is not None
        name = repository.full_name
        if repository.repo_name == MISSING:
            return FetchMirrorResult(name, False, None, "The repository does not exist.")
        return FetchMirrorResult(name, True, f"/repos/{name}.git", None)


class Live:
    """The API and workers with one slot."""

    task_queue = "host-fake"

    def __init__(self, api: Api, host: FakeHost, temporal: TemporalClient) -> None:
        self.api = api
        self._host = host
        self._temporal = temporal

    def let_go(self, job_id: str) -> None:
        """End the held turn of a job."""
        self._host.let_go[job_id].set()

    def turns(self, job_id: str) -> list[list[str]]:
        """The ids of the messages of each turn."""
        return self._host.turns[job_id]

    async def status(self, job_id: str) -> WorkflowExecutionStatus | None:
        """The state of the job's workflow."""
        return (await self._temporal.get_workflow_handle(f"job-{job_id}").describe()).status

    async def wait_for(self, job_id: str, reached: str) -> Json:
        """Wait for a status or phase, and return the job."""

        async def reached_it() -> Json | None:
            job = await self.api.get(f"/jobs/{job_id}")
            return job if reached in {job["status"], job["phase"]} else None

        job: Json = await eventually(reached_it, f"job {job_id} is {reached}")
        return job

    async def end_all(self) -> None:
        page = await self.api.store.list_jobs(JobFilter(), 1000, 0)
        for job in (details.job for details in page.jobs if details.job.is_live):
            await self.api.call("POST", f"/jobs/{job.id}/cancel")


async def eventually(
    reached: Callable[[], Awaitable[Any]], description: str = "", seconds: float = 20.0
) -> Any:
    """Poll `reached` and return its first true value."""
    deadline = time.monotonic() + seconds
    while not (value := await reached()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {description}"
        await asyncio.sleep(0.01)
    return value


@asynccontextmanager
async def running_live(api: Api, temporal: TemporalClient) -> AsyncIterator[Live]:
    """Run a worker for every task queue."""
    leases, capacity = Leases(), HostSlotSupplier(1)
    host = FakeHost(api.store, leases)
    records = RecordActivities(api.store)
    slots = SlotActivities(
        api.store,
        temporal,
        leases,
        capacity,
        Credential(api.store, "c0ffee"),
        "fake",
        Live.task_queue,
    )
    on_host: list[Activity] = [slots.release_slot, slots.stop_work, *_activities(host)]
    workflow_worker = Worker(
        temporal,
        task_queue=JOBS_TASK_QUEUE,
        workflows=[CodeJobWorkflow, TaskJobWorkflow, SyncRepositoriesWorkflow],
    )
    async with (
        _activity_worker(temporal, RECORDS_TASK_QUEUE, _activities(records)),
        _activity_worker(temporal, Live.task_queue, on_host),
        _activity_worker(temporal, SLOTS_TASK_QUEUE, [slots.hold_slot]),
        workflow_worker,
    ):
        yield Live(api, host, temporal)


def _activity_worker(
    temporal: TemporalClient, task_queue: str, activities: list[Activity]
) -> Worker:
    return Worker(
        temporal,
        task_queue=task_queue,
        activities=activities,
        interceptors=[ErrorInterceptor(), HeartbeatInterceptor()],
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
    )


def _activities(owner: object) -> list[Activity]:
    members = (getattr(owner, name) for name in dir(owner) if not name.startswith("_"))
    return [member for member in members if hasattr(member, "__temporal_activity_definition")]
