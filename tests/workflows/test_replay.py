"""The workflows of today replay what jobs have recorded; a deployment harms none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from workflows.code_job import CodeJobWorkflow
from workflows.mirrors import FetchMirrorsWorkflow
from workflows.task_job import TaskJobWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def load(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def replayer() -> Replayer:
    return Replayer(workflows=[CodeJobWorkflow, TaskJobWorkflow, FetchMirrorsWorkflow])


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path):
    await replayer().replay_workflow(load(path))


def test_every_kind_of_ending_is_recorded():
    kinds = {path.stem.rsplit("-", 1)[0] for path in HISTORIES}
    assert {"code_job", "conversation", "code_job_that_lost_its_machine"} <= kinds


async def test_a_history_of_other_decisions_does_not_replay():
    path = next(path for path in HISTORIES if path.stem.startswith("code_job-"))
    history: dict[str, Any] = json.loads(path.read_text())
    for event in history["events"]:
        scheduled = event.get("activityTaskScheduledEventAttributes", {})
        if scheduled.get("activityType", {}).get("name") == "publish":
            scheduled["activityType"]["name"] = "something_else"
    changed = WorkflowHistory.from_json("changed", history)
    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(changed)


EARLY = "code_job_that_fails-20261123"
"""Recorded before there were clocks and standstills."""


def failing_early_with(kind: str) -> dict[str, Any]:
    """A history in which Claude failed in another way, up to where it was told."""
    path = next(path for path in HISTORIES if path.stem == EARLY)
    history: dict[str, Any] = json.loads(path.read_text())
    for event in history["events"]:
        failed = event.get("activityTaskFailedEventAttributes")
        if failed is not None:
            failed["failure"]["applicationFailureInfo"]["type"] = kind
            if kind == "claude_overloaded":
                failed["failure"]["applicationFailureInfo"]["nonRetryable"] = False
    return history


async def test_a_usage_limit_of_an_early_job_ended_it():
    history = WorkflowHistory.from_json("limited", failing_early_with("usage_limit"))
    await replayer().replay_workflow(history)


async def test_an_overload_of_an_early_job_was_waited_out_on_its_machine():
    history = failing_early_with("claude_overloaded")
    events = history["events"]
    failed = next(
        number
        for number, event in enumerate(events)
        if "activityTaskFailedEventAttributes" in event
    )
    decided = next(
        number
        for number, event in enumerate(events)
        if number > failed and "workflowTaskCompletedEventAttributes" in event
    )
    completed = events[decided]["eventId"]
    timer = {
        "eventId": str(int(completed) + 1),
        "eventTime": events[decided]["eventTime"],
        "eventType": "EVENT_TYPE_TIMER_STARTED",
        "timerStartedEventAttributes": {
            "timerId": "1",
            "startToFireTimeout": "15s",
            "workflowTaskCompletedEventId": completed,
        },
    }
    history["events"] = [*events[: decided + 1], timer]
    await replayer().replay_workflow(WorkflowHistory.from_json("overloaded", history))
