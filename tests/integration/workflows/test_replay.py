"""Recorded histories must replay, so that a deployment does not break running jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.integration.workflows.record_histories import HISTORIES, RUNS
from workflows.code_job import CodeJobWorkflow
from workflows.sync_repositories import SyncRepositoriesWorkflow
from workflows.task_job import TaskJobWorkflow


def load(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def replayer() -> Replayer:
    return Replayer(workflows=[CodeJobWorkflow, TaskJobWorkflow, SyncRepositoriesWorkflow])


@pytest.mark.parametrize("path", sorted(HISTORIES.rglob("*.json")), ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path):
    await replayer().replay_workflow(load(path))


def test_every_run_is_recorded():
    recorded = {path.stem for path in HISTORIES.glob("*.json")}
    assert recorded == {run.__name__ for run in RUNS}


async def test_a_history_with_other_decisions_does_not_replay():
    history: dict[str, Any] = json.loads((HISTORIES / "code_job.json").read_text())
    for event in history["events"]:
        scheduled = event.get("activityTaskScheduledEventAttributes", {})
        if scheduled.get("activityType", {}).get("name") == "publish":
            scheduled["activityType"]["name"] = "something_else"
    changed = WorkflowHistory.from_json("changed", history)
    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(changed)
