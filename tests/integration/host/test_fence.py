"""A host that cannot reach Temporal gives up its jobs, with a real server that dies."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.testing import ActivityEnvironment

from activities.slots import HoldSlotInput, ReleaseSlotInput, SlotActivities
from domain.errors import LeaseLost
from host.slots import fence as fencing
from host.slots.credential_holds import Credential
from host.slots.fence import Fence
from host.slots.leases import LeaseKey, Leases
from host.slots.slot_supplier import HostSlotSupplier
from tests.integration.activities.temporal_process import TemporalProcess, temporal_process
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import World
from workflows.policies import HEARTBEAT_TIMEOUT

CUT_OFF = 1.5


class WatchedFence(Fence):
    """A fence that records the result of each check."""

    def __init__(self, temporal: TemporalClient, leases: Leases) -> None:
        super().__init__(temporal, leases)
        self.found: list[bool] = []

    async def _is_reachable(self) -> bool:
        self.found.append(await super()._is_reachable())
        return self.found[-1]


class WorkerHost:
    """A host with a running job and a fence."""

    def __init__(self, temporal: TemporalClient, world: World) -> None:
        self.temporal = temporal
        self.world = world
        self.leases = Leases()
        self.fence = WatchedFence(temporal, self.leases)
        self.slots = SlotActivities(
            world.store,
            temporal,
            self.leases,
            HostSlotSupplier(2),
            Credential(world.store, "c0ffee"),
            "mill-1",
            "host-mill-1",
        )

    async def hold(self) -> tuple[LeaseKey, asyncio.Task[None]]:
        """Hold a slot, as a job's workflow asks for it."""
        key = LeaseKey((await self.world.add_job()).id, 1)
        handle = await self.temporal.start_workflow(
            "Nobody", id=str(uuid.uuid4()), task_queue="nobody"
        )
        request = HoldSlotInput(key, needs_claude=True, host_claude_finished_on=None)
        environment = ActivityEnvironment()
        environment.info = replace(
            environment.info, workflow_id=handle.id, workflow_run_id=handle.result_run_id
        )
        holding = asyncio.create_task(environment.run(self.slots.hold_slot, request))
        await eventually(lambda: self.leases.find(key) is not None)
        return key, holding

    def work(self, key: LeaseKey) -> asyncio.Task[None]:
        return asyncio.create_task(self.leases.require(key).run(asyncio.sleep(3600)))


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[tuple[TemporalProcess, TemporalClient]]:
    async with temporal_process() as started:
        yield started


@pytest.fixture
async def host(
    server: tuple[TemporalProcess, TemporalClient], world: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerHost]:
    monkeypatch.setattr(fencing, "CUT_OFF_AFTER", timedelta(seconds=CUT_OFF))
    monkeypatch.setattr(fencing, "CHECK_INTERVAL", timedelta(seconds=0.1))
    made = WorkerHost(server[1], world)
    watching = asyncio.create_task(made.fence.run_forever())
    yield made
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def test_claude_can_be_stopped_before_another_host_takes_over() -> None:
    """Stopping an unresponsive Claude takes 5 s (`ClaudeProcess.stop`)."""
    assert HEARTBEAT_TIMEOUT - fencing.CUT_OFF_AFTER >= timedelta(seconds=5)


async def test_a_short_outage_stops_no_job(
    host: WorkerHost, server: tuple[TemporalProcess, TemporalClient]
) -> None:
    key, holding = await host.hold()
    running = host.work(key)
    await eventually(lambda: host.fence.found[-2:] == [True, True])
    server[0].freeze()
    try:
        await eventually(lambda: host.fence.found[-2:] == [False, False])
    finally:
        server[0].go_on()
    await eventually(lambda: host.fence.found[-1])
    reached = len(host.fence.found)
    await asyncio.sleep(CUT_OFF * 1.2)
    assert all(host.fence.found[reached:])
    assert not running.done()
    assert host.leases.find(key) is not None
    await host.slots.release_slot(ReleaseSlotInput(key))
    await holding
    with pytest.raises(LeaseLost):
        await running


async def test_a_host_that_is_cut_off_gives_up_its_jobs(
    host: WorkerHost, server: tuple[TemporalProcess, TemporalClient]
) -> None:
    (first, holding), (second, holding_too) = await host.hold(), await host.hold()
    works = [host.work(first), host.work(second)]
    await eventually(lambda: host.fence.found[-2:] == [True, True])
    clock = asyncio.get_running_loop().time
    server[0].kill()
    killed = clock()
    for running in works:
        with pytest.raises(LeaseLost):
            await running
    assert CUT_OFF - 0.2 <= clock() - killed < CUT_OFF + 4
    for held in (holding, holding_too):
        with pytest.raises(LeaseLost, match="lost its connection"):
            await held
    assert host.leases.job_ids == set()
    key = LeaseKey("later", 1)
    host.leases.take(key)
    await eventually(lambda: host.leases.find(key) is None)
