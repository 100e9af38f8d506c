"""Workers whose activities follow scripts and have the names of the real activities.

They keep the guarantees that the workflows need: a lease is required, stopping ends the work under
a lease, errors are translated as in the product, and a final status never changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
)

from activities.claude import (
    DeliverMessageInput,
    DeliverMessageResult,
    RunClaudeInput,
    RunClaudeResult,
)
from activities.interceptors.errors import WORKER_SHUTDOWN, ErrorInterceptor
from activities.job_records import (
    RECORDS_TASK_QUEUE,
    AcceptMessageInput,
    EndLimitWaitInput,
    EnqueueTurnInput,
    FindHostQueueInput,
    FindHostQueueResult,
    FinishJobInput,
    FinishJobResult,
    ForgetWorkspaceInput,
    ListHostQueuesInput,
    ListHostQueuesResult,
    RecordCompletionInput,
    RequeueInput,
    WaitForLimitInput,
    WaitForUserInput,
)
from activities.pull_requests import OpenPullRequestInput, OpenPullRequestResult
from activities.slots import (
    GRANT_SIGNAL,
    SLOTS_TASK_QUEUE,
    HoldSlotInput,
    ReleaseSlotInput,
    SlotGrant,
    StopWorkInput,
    slots_task_queue_of,
)
from activities.withdrawals import WithdrawInput
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
from domain.errors import JobEnded
from domain.jobs import FINAL, JobStatus
from host.shielding import run_to_completion
from host.slots.leases import LeaseKey, Leases
from tests.integration.workflows.scripts import Script, WorkerState, returns

HEARTBEAT_SECONDS = 0.05
SHA = "5" * 40
Scripts = dict[str, Script]
Activities = list[Callable[..., Awaitable[Any]]]


def task_queue(host: str) -> str:
    return f"host-{host}"


class _Scripted:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def script(self) -> Script:
        """Return the script of the calling workflow. Block if the workflow belongs to no test."""
        found = self._scripts.get(activity.info().workflow_id or "")
        if found is None:
            await asyncio.Event().wait()
            raise AssertionError
        return found


class ScriptedHost(_Scripted):
    """The activities of one host, as one process runs them."""

    def __init__(self, name: str, scripts: Scripts) -> None:
        super().__init__(scripts)
        self.name = name
        self.leases = Leases()

    @property
    def activities(self) -> Activities:
        return [
            self.release_slot,
            self.stop_work,
            self.prepare,
            self.run_claude,
            self.deliver_message,
            self.publish,
            self.open_pull_request,
            self.verify_unchanged,
            self.clean_up,
            self.fetch_mirror,
        ]

    @activity.defn
    async def release_slot(self, request: ReleaseSlotInput) -> None:
        await (await self.script()).play("release_slot", request, returns())
        if (lease := self.leases.find(request.lease)) is not None:
            await lease.stop()
            self.leases.drop(lease)

    @activity.defn
    async def stop_work(self, request: StopWorkInput) -> None:
        await (await self.script()).play("stop_work", request, returns())
        if (lease := self.leases.find(request.lease)) is not None:
            await lease.stop()

    @activity.defn
    async def prepare(self, request: PrepareInput) -> PrepareResult:
        script = await self.script()
        default = returns(PrepareResult("b" * 40, continues_branch=False, existed=True))
        found: PrepareResult = await self.leases.require(request.lease).run(
            script.play("prepare", request, default)
        )
        return found

    @activity.defn
    async def run_claude(self, request: RunClaudeInput) -> RunClaudeResult:
        script = await self.script()
        lease = self.leases.require(request.lease)
        return await lease.run(self._turn(script, request))

    async def _turn(self, script: Script, request: RunClaudeInput) -> RunClaudeResult:
        """Answer all messages, initial and delivered ones, unless the script returns a result."""
        inbox: list[str] = []
        script.inbox = inbox
        try:
            output: RunClaudeResult | None = await script.play("run_claude", request, returns())
            output = output or RunClaudeResult([*request.message_ids, *inbox])
            script.seen += output.answered
            return output
        finally:
            script.inbox = None

    @activity.defn
    async def deliver_message(self, request: DeliverMessageInput) -> DeliverMessageResult:
        script = await self.script()

        async def default(request: DeliverMessageInput) -> bool:
            if script.inbox is None:
                return False
            script.inbox.append(request.message_id)
            return True

        return DeliverMessageResult(bool(await script.play("deliver_message", request, default)))

    @activity.defn
    async def publish(self, request: PublishInput) -> PublishResult:
        script = await self.script()
        self.leases.require(request.lease)
        work = script.play("publish", request, returns(PublishResult(SHA)))
        published: PublishResult = await run_to_completion(work)
        return published

    @activity.defn
    async def open_pull_request(self, request: OpenPullRequestInput) -> OpenPullRequestResult:
        script = await self.script()
        self.leases.require(request.lease)
        default = returns(OpenPullRequestResult(1, "https://forge.example/acme/shop/pull/1"))
        opened: OpenPullRequestResult = await run_to_completion(
            script.play("open_pull_request", request, default)
        )
        return opened

    @activity.defn
    async def verify_unchanged(self, request: VerifyUnchangedInput) -> None:
        await (await self.script()).play("verify_unchanged", request, returns())

    @activity.defn
    async def clean_up(self, request: CleanUpInput) -> None:
        await (await self.script()).play("clean_up", request, returns())

    @activity.defn
    async def fetch_mirror(self, request: FetchMirrorInput) -> FetchMirrorResult:
        script = await self.script()
        repository_id = request.repository_id
        default = returns(
            FetchMirrorResult(repository_id, True, f"/{self.name}/{repository_id}", None)
        )
        name = f"fetch_mirror on {self.name}"
        result: FetchMirrorResult = await script.play(name, request, default)
        return result


class Slots(_Scripted):
    """The slots of all hosts. Other hosts can grant a slot, but do not answer later."""

    def __init__(
        self, temporal: TemporalClient, scripts: Scripts, *hosts: ScriptedHost, release_delay: float
    ) -> None:
        super().__init__(scripts)
        self._temporal = temporal
        self._release_delay = release_delay
        self._hosts = {host.name: host for host in hosts}

    @activity.defn
    async def hold_slot(self, request: HoldSlotInput) -> None:
        """Grant a slot, and hold it until it is released or the host stops."""
        script = await self.script()
        script.asked.append(activity.info().task_queue)

        async def default(request: HoldSlotInput) -> None:
            if script.row in FINAL:
                raise JobEnded("The job has ended.")
            script.row = JobStatus.RUNNING
            await self._hold(script, request.lease)

        await script.play("hold_slot", request, default)

    async def _hold(self, script: Script, key: LeaseKey) -> None:
        name = script.next_host()
        leases = self._hosts[name].leases if name in self._hosts else Leases()
        lease = leases.take(key)
        script.host = name
        await self._tell(key, name)
        stops = asyncio.ensure_future(script.worker_state.stops.wait())
        ended = asyncio.ensure_future(lease.ended.wait())
        try:
            await asyncio.wait({stops, ended}, return_when=asyncio.FIRST_COMPLETED)
            if stops.done():
                raise ApplicationError("The worker stops.", type=WORKER_SHUTDOWN)
            await asyncio.sleep(self._release_delay)
        finally:
            stops.cancel()
            ended.cancel()
            await asyncio.shield(lease.stop())
            leases.drop(lease)

    async def _tell(self, key: LeaseKey, host: str) -> None:
        handle = self._temporal.get_workflow_handle(activity.info().workflow_id or "")
        host_id = host.partition("-")[0]
        await handle.signal(GRANT_SIGNAL, SlotGrant(key.number, host_id, task_queue(host)))


class Records(_Scripted):
    """The activities of the `records` queue."""

    @property
    def activities(self) -> Activities:
        return [
            self.enqueue_turn,
            self.requeue,
            self.finish_job,
            self.wait_for_user,
            self.wait_for_limit,
            self.end_limit_wait,
            self.accept_message,
            self.record_completion,
            self.list_host_queues,
            self.find_host_queue,
            self.forget_workspace,
            self.withdraw,
        ]

    @activity.defn
    async def enqueue_turn(self, request: EnqueueTurnInput) -> None:
        await (await self.script()).play("enqueue_turn", request, returns())

    @activity.defn
    async def requeue(self, request: RequeueInput) -> None:
        await (await self.script()).play("requeue", request, returns())

    @activity.defn
    async def finish_job(self, request: FinishJobInput) -> FinishJobResult:
        script = await self.script()
        script.endings.append(request)
        await script.play("finish_job", request, returns())
        if script.row not in FINAL:
            script.row = request.status
        return FinishJobResult(script.row)

    @activity.defn
    async def wait_for_user(self, request: WaitForUserInput) -> None:
        await (await self.script()).play("wait_for_user", request, returns())

    @activity.defn
    async def wait_for_limit(self, request: WaitForLimitInput) -> None:
        await (await self.script()).play("wait_for_limit", request, returns())

    @activity.defn
    async def end_limit_wait(self, request: EndLimitWaitInput) -> None:
        await (await self.script()).play("end_limit_wait", request, returns())

    @activity.defn
    async def accept_message(self, request: AcceptMessageInput) -> None:
        await (await self.script()).play("accept_message", request, returns())

    @activity.defn
    async def record_completion(self, request: RecordCompletionInput) -> None:
        await (await self.script()).play("record_completion", request, returns())

    @activity.defn
    async def list_host_queues(self, request: ListHostQueuesInput) -> ListHostQueuesResult:
        script = await self.script()
        queues = [task_queue(host) for host in script.hosts if host]
        return ListHostQueuesResult(await script.play("list_host_queues", request, returns(queues)))

    @activity.defn
    async def find_host_queue(self, request: FindHostQueueInput) -> FindHostQueueResult:
        default = returns(task_queue(request.host_id))
        script = await self.script()
        return FindHostQueueResult(await script.play("find_host_queue", request, default))

    @activity.defn
    async def forget_workspace(self, request: ForgetWorkspaceInput) -> None:
        await (await self.script()).play("forget_workspace", request, returns())

    @activity.defn
    async def withdraw(self, request: WithdrawInput) -> None:
        await (await self.script()).play("withdraw", request, returns())


@contextlib.asynccontextmanager
async def running_hosts(
    temporal: TemporalClient, scripts: Scripts, release_delay: float = 0.0
) -> AsyncIterator[None]:
    """Poll for all activities. No job can return to `c`.

    `hold_slot` ends `release_delay` seconds after its slot was released.
    """
    hosts = [ScriptedHost(name, scripts) for name in ("a", "a-restarted", "b", "c")]
    slots = Slots(temporal, scripts, *hosts, release_delay=release_delay)
    queues: dict[str, Activities] = {
        RECORDS_TASK_QUEUE: Records(scripts).activities,
        SLOTS_TASK_QUEUE: [slots.hold_slot],
        **{slots_task_queue_of(host): [slots.hold_slot] for host in ("a", "b")},
        **{task_queue(host.name): host.activities for host in hosts},
    }
    async with contextlib.AsyncExitStack() as stack:
        for name, activities in queues.items():
            worker = Worker(
                temporal,
                task_queue=name,
                activities=activities,
                interceptors=[ErrorInterceptor(), _ScriptedHeartbeats(scripts)],
                max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
            )
            await stack.enter_async_context(worker)
        yield


class _ScriptedHeartbeats(Interceptor):
    """Sends heartbeats for each activity while the host of its script lives."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _WithHeartbeats(next, self._scripts)


class _WithHeartbeats(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, scripts: Scripts) -> None:
        super().__init__(next)
        self._scripts = scripts

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        script = self._scripts.get(activity.info().workflow_id or "", Script())
        if activity.info().task_queue in map(task_queue, script.dead):
            await asyncio.Event().wait()
        heartbeats = asyncio.create_task(_send_heartbeats(script.worker_state))
        try:
            return await super().execute_activity(input)
        finally:
            heartbeats.cancel()


async def _send_heartbeats(state: WorkerState) -> None:
    while not state.is_silent:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_SECONDS)
