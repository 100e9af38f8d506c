"""Heartbeats are sent in the background, and only by activities with a heartbeat timeout."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client as TemporalClient
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.interceptors import heartbeats
from activities.interceptors.heartbeats import HeartbeatInterceptor

BEAT = timedelta(milliseconds=100)


@dataclass(frozen=True)
class Wait:
    """The duration and the heartbeat timeout of an activity, in seconds."""

    takes: float
    heartbeat_timeout: float | None


@workflow.defn
class WaitForActivity:
    @workflow.run
    async def run(self, wait: Wait) -> str:
        limit = wait.heartbeat_timeout
        try:
            return await workflow.execute_activity(
                wait_a_while,
                wait.takes,
                start_to_close_timeout=timedelta(minutes=1),
                heartbeat_timeout=timedelta(seconds=limit) if limit else None,
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except ActivityError as error:
            return f"{error.cause!r}: {getattr(error.cause, 'type', None)!r}"


@activity.defn
async def wait_a_while(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a worker for the workflows."""
    monkeypatch.setattr(heartbeats, "HEARTBEAT_INTERVAL", BEAT)
    seen: list[str] = []
    real = activity.heartbeat

    def heartbeat(*details: object) -> None:
        seen.append(activity.info().workflow_id or "")
        real(*details)

    monkeypatch.setattr(activity, "heartbeat", heartbeat)
    return seen


@pytest.fixture
async def temporal_with_beats(
    temporal: TemporalClient, beats: list[str]
) -> AsyncIterator[TemporalClient]:
    worker = Worker(
        temporal,
        task_queue="beating",
        workflows=[WaitForActivity],
        activities=[wait_a_while],
        interceptors=[HeartbeatInterceptor()],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_heartbeat_throttle_interval=BEAT,
    )
    async with worker:
        yield temporal


async def outcome(temporal: TemporalClient, wait: Wait, name: str) -> str:
    return await temporal.execute_workflow(WaitForActivity.run, wait, id=name, task_queue="beating")


async def test_only_activities_with_a_timeout_send_heartbeats(
    temporal_with_beats: TemporalClient, beats: list[str]
) -> None:
    long, silent = f"long-{uuid.uuid4()}", f"silent-{uuid.uuid4()}"
    outcomes = await asyncio.gather(
        outcome(temporal_with_beats, Wait(2.5, heartbeat_timeout=1), long),
        outcome(temporal_with_beats, Wait(0.5, heartbeat_timeout=None), silent),
    )
    assert list(outcomes) == ["done", "done"]
    assert beats.count(long) > 5
    assert beats.count(silent) == 0
    ended_at = len(beats)
    await asyncio.sleep(2 * BEAT.total_seconds())
    assert len(beats) == ended_at


async def test_a_blocked_process_sends_no_heartbeats(
    temporal_with_beats: TemporalClient, beats: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats come from the event loop of the work, so a blocked loop loses the activity."""
    monkeypatch.setattr(heartbeats, "HEARTBEAT_INTERVAL", timedelta(hours=1))
    name = f"hanging-{uuid.uuid4()}"
    said = await outcome(temporal_with_beats, Wait(3, heartbeat_timeout=1), name)
    assert said.startswith("TimeoutError")
    assert "HEARTBEAT" in said
    assert beats == []
