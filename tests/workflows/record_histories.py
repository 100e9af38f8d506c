"""Records the histories that `test_replay` replays: `python -m tests.workflows.record_histories`.

The names of some of the runs below, as arguments, record only those.
Run it after a deliberate change of a workflow that is guarded by `workflow.patched`, and keep the
older files: they are what running jobs look like to the new code.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from temporalio.client import Client as TemporalClient

from demo.model import Step
from tests.stack import ROOT, Stack, running_stack
from workflows.job_steps import workflow_id

HISTORIES = Path(__file__).parent / "histories"


def code_job(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, "Write a note")
    stack.wait_for(job_id, "completed")
    return job_id


def code_job_without_changes(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, stack.script([{"text": "Nothing to do."}]))
    stack.wait_for(job_id, "completed")
    return job_id


def code_job_that_fails(stack: Stack, client: str) -> str:
    step: Step = {"status": 403, "error": "permission_error", "message": "no", "times": 9}
    job_id = stack.post_job(client, stack.script([step]))
    stack.wait_for(job_id, "failed")
    return job_id


def code_job_cancelled_while_working(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, stack.script([{"text": "Late", "delay": 60}]))
    stack.wait_for(job_id, "working")
    stack.call("POST", f"/jobs/{job_id}/cancel")
    return job_id


def code_job_cancelled_while_publishing(stack: Stack, client: str) -> str:
    stack.forge.delay_next("git-receive-pack", 3)
    job_id = stack.post_job(client, "Write a note")
    stack.wait_for(job_id, lambda job: bool(job["head_sha"]))
    stack.call("POST", f"/jobs/{job_id}/cancel")
    return job_id


def code_job_that_lost_its_machine(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, stack.script([{"text": "Slow", "delay": 3}, {"text": "Done"}]))
    stack.wait_for(job_id, "working")
    for pid in stack.pids("cli.py worker"):
        os.kill(pid, signal.SIGKILL)
    stack.wait_for(job_id, "completed", seconds=90)
    return job_id


def code_job_that_waited_for_servers(stack: Stack, client: str) -> str:
    overload: Step = {"status": 529, "error": "overloaded_error", "message": "busy", "times": 5}
    job_id = stack.post_job(client, stack.script([overload, {"text": "Nothing to do."}]))
    stack.wait_for(job_id, "completed", seconds=90)
    return job_id


def code_job_that_publishes_kept_work(stack: Stack, client: str) -> str:
    stack.forge.fail_next("git-receive-pack", status=403)
    failed = stack.post_job(client, "Write a note")
    stack.wait_for(failed, lambda job: job["status"] == "failed" and job["phase"] is None)
    job_id = str(stack.call("POST", f"/jobs/{failed}/retry", {"from": "publish"})["id"])
    stack.wait_for(job_id, "completed")
    return job_id


def conversation(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, "What is this?", jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    stack.call("POST", f"/jobs/{job_id}/message", {"message": "And why?"})
    stack.wait_for(job_id, lambda job: "why" in (job["result"] or ""))
    stack.wait_for(job_id, "waiting_for_user")
    stack.call("POST", f"/jobs/{job_id}/complete")
    stack.wait_for(job_id, "completed")
    return job_id


def conversation_cancelled_while_waiting(stack: Stack, client: str) -> str:
    job_id = stack.post_job(client, "What is this?", jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    stack.call("POST", f"/jobs/{job_id}/cancel")
    return job_id


RUNS: tuple[Callable[[Stack, str], str], ...] = (
    code_job,
    code_job_without_changes,
    code_job_that_fails,
    code_job_cancelled_while_working,
    code_job_cancelled_while_publishing,
    conversation,
    conversation_cancelled_while_waiting,
    code_job_that_lost_its_machine,
    code_job_that_waited_for_servers,
    code_job_that_publishes_kept_work,
)


async def history_of(stack: Stack, job_id: str) -> str:
    temporal = await TemporalClient.connect(stack.temporal_address)
    handle = temporal.get_workflow_handle(workflow_id(job_id))
    await handle.result()
    return (await handle.fetch_history()).to_json()


def main(names: Sequence[str]) -> None:
    wanted = [run for run in RUNS if run.__name__ in names]
    HISTORIES.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d")
    with tempfile.TemporaryDirectory() as root, running_stack(Path(root) / "stack") as stack:
        client, _ = stack.new_repository()
        for run in wanted or RUNS:
            history = asyncio.run(history_of(stack, run(stack, client)))
            text = json.dumps(json.loads(history), indent=1).replace(root, "/root")
            text = text.replace(str(ROOT), "/opt/orchestrator")
            (HISTORIES / f"{run.__name__}-{stamp}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
