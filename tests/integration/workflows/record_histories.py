"""Record the histories that `test_replay` replays.

Run `python -m tests.integration.workflows.record_histories`.

It starts the whole product, runs what is listed in `RUNS` below, and replaces the files in
`histories`. Names of runs, given as arguments, record only those. Needs the Claude CLI and takes
about a minute.

Run it by hand after a deliberate change of a workflow or of an activity's name or input. Workflows
of a released version may still be running when their host is upgraded. So before you record again
after a release, move its files to a folder `histories/<version>` and guard the change with
`workflow.patched`; the files there must still replay.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from temporalio.client import Client as TemporalClient

from fakes.anthropic.server import Step
from tests.stack import ROOT, Stack, running_stack
from workflows.steps import workflow_id

HISTORIES = Path(__file__).parent / "histories"
SYNC_WORKFLOW_ID = "sync-all"


def code_job(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, "Write a note")
    stack.wait_for(job_id, "completed")
    return workflow_id(job_id)


def code_job_that_fails(stack: Stack, client: str) -> str:
    step: Step = {"status": 403, "error": "permission_error", "message": "no", "times": 9}
    job_id = stack.post_job(client, stack.script([step]))
    stack.wait_for(job_id, "failed")
    return workflow_id(job_id)


def code_job_cancelled(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, stack.script([{"text": "Late", "delay": 60}]))
    stack.wait_for(job_id, "working")
    stack.call("POST", f"/jobs/{job_id}/cancel")
    return workflow_id(job_id)


def code_job_that_lost_its_worker(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, stack.script([{"text": "Slow", "delay": 3}, {"text": "Done"}]))
    stack.wait_for(job_id, "working")
    for pid in stack.pids("cli.py worker"):
        os.kill(pid, signal.SIGKILL)
    stack.wait_for(job_id, "completed", seconds=90)
    return workflow_id(job_id)


def conversation(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, "What is this?", jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    stack.call("POST", f"/jobs/{job_id}/message", {"message": "And why?"})
    stack.wait_for(job_id, lambda job: "why" in (job["result"] or ""))
    stack.wait_for(job_id, "waiting_for_user")
    stack.call("POST", f"/jobs/{job_id}/complete")
    stack.wait_for(job_id, "completed")
    return workflow_id(job_id)


def sync_repositories(stack: Stack, client: str) -> str:
    stack.call("POST", "/sync")
    return SYNC_WORKFLOW_ID


RUNS: tuple[Callable[[Stack, str], str], ...] = (
    code_job,
    code_job_that_fails,
    code_job_cancelled,
    conversation,
    sync_repositories,
    code_job_that_lost_its_worker,
)


async def history_of(stack: Stack, workflow: str) -> str:
    temporal = await TemporalClient.connect(stack.temporal_address)
    handle = temporal.get_workflow_handle(workflow)
    await handle.result()
    return (await handle.fetch_history()).to_json()


def main(names: Sequence[str]) -> None:
    wanted = [run for run in RUNS if run.__name__ in names]
    HISTORIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as root, running_stack(Path(root) / "stack") as stack:
        client, _ = stack.new_repository()
        for run in wanted or RUNS:
            history = asyncio.run(history_of(stack, run(stack, client)))
            text = json.dumps(json.loads(history), indent=1).replace(root, "/root")
            text = text.replace(str(ROOT), "/opt/orchestrator")
            text = text.replace(sys.base_prefix, "/usr")
            (HISTORIES / f"{run.__name__}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
