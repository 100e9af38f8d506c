"""Cancelling in each phase: final at once, no process keeps running, no work stays published."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import commands_of, processes_of
from tests.e2e.steps import python, say, wait_for_file, write
from tests.stack import OWNER, Json, Stack, eventually

BRANCH = "feature/x"
DELAY = 2.5


@pytest.fixture(autouse=True)
def _no_faults_left(stack: Stack) -> Iterator[None]:
    yield
    stack.github.clear_faults()


def cancel(stack: Stack, job_id: str) -> Json:
    answer = stack.call("POST", f"/jobs/{job_id}/cancel")
    assert answer["status"] == "cancelled"
    eventually(lambda: processes_of(job_id) == [], 10, f"no process of {job_id} is left")
    return answer


def assert_withdrawn(stack: Stack, name: str, answered_at: float) -> None:
    """Check that the fake GitHub has no branch or pull request, also after the delayed request."""
    while time.monotonic() < answered_at + 1:
        time.sleep(0.1)
    eventually(lambda: list(stack.github.branches(OWNER, name)) == ["main"], 30, "branch is gone")
    assert "open" not in [pull.state for pull in stack.github.pull_requests(OWNER, name)]


def assert_at_rest(stack: Stack, job_id: str) -> None:
    """Check that the job stayed cancelled, without a worktree or slot."""
    job = stack.wait_for(job_id, lambda job: job["phase"] is None, 60)
    assert (job["status"], job["outcome"], job["error"]) == ("cancelled", None, None)
    assert job["completed_at"]
    assert job["pid"] is None
    assert not Path(job["worktree_path"] or "/nowhere").exists()
    assert job_id not in str(stack.call("GET", "/queue"))
    stack.call("POST", f"/jobs/{job_id}/cancel", status=400)
    eventually(lambda: "Job cancelled." in [m["content"] for m in stack.messages(job_id)], 30)


def assert_retry_works(stack: Stack, job_id: str, name: str) -> None:
    retried = stack.call("POST", f"/jobs/{job_id}/retry")
    job = stack.wait_for(retried["id"], "completed")
    assert job["retry_of"] == job_id
    assert retried["branchName"] in stack.github.branches(OWNER, name)


def test_cancel_while_queued(stack: Stack):
    client, name = stack.new_repository()
    signal_file = stack.signal_file()
    busy = [
        stack.post_job(client, stack.script([wait_for_file(signal_file), say("Done.")]))
        for _ in range(2)
    ]
    job_id = stack.post_job(client, stack.script([write("a.txt", "a"), say("Done.")]))
    for other in busy:
        stack.wait_for(other, "working")
    assert stack.job(job_id)["phase"] == "waiting_for_slot"
    assert cancel(stack, job_id)["wasRunning"] is False
    assert_at_rest(stack, job_id)
    signal_file.touch()
    for other in busy:
        stack.wait_for(other, "completed")
    assert stack.job(job_id)["started_at"] is None
    assert_retry_works(stack, job_id, name)


def test_cancel_while_preparing(stack: Stack):
    client, name = stack.new_repository()
    stack.github.delay_next(f"/{OWNER}/{name}.git/info/refs", 30)
    job_id = stack.post_job(client, stack.script([write("a.txt", "a"), say("Done.")]))
    stack.wait_for(job_id, "preparing")
    eventually(lambda: stack.pids(f"{name}.git"), 30, "git fetches")
    assert cancel(stack, job_id)["wasRunning"] is True
    assert_at_rest(stack, job_id)
    assert stack.pids(f"{name}.git") == []
    assert_retry_works(stack, job_id, name)


def test_cancel_while_a_command_ignores_signals(stack: Stack, tmp_path: Path):
    client, name = stack.new_repository()
    signal_file = stack.signal_file()
    stubborn = python(
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"while not pathlib.Path({str(signal_file)!r}).exists(): time.sleep(0.05)\n"
    )
    job_id = stack.post_job(
        client, stack.script([write("a.txt", "a"), stubborn, say("Done.")]), branchName=BRANCH
    )
    eventually(lambda: commands_of(job_id, str(signal_file)), 60, "the command runs")
    assert cancel(stack, job_id)["wasRunning"] is True
    assert processes_of(job_id) == []
    assert_at_rest(stack, job_id)
    signal_file.touch()
    assert_retry_works(stack, job_id, name)


def test_cancel_while_waiting_for_the_user(stack: Stack):
    client, _ = stack.new_repository()
    job_id = stack.post_job(client, stack.script([say("What now?")]), jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    assert cancel(stack, job_id)["wasRunning"] is True
    assert_at_rest(stack, job_id)
    stack.call("POST", f"/jobs/{job_id}/message", {"message": "late"}, status=400)
    retried = stack.call("POST", f"/jobs/{job_id}/retry")["id"]
    stack.wait_for(retried, "waiting_for_user")
    cancel(stack, retried)


def delay_before_push(stack: Stack) -> None:
    stack.github.delay_next("git-receive-pack:refs", DELAY)


def delay_in_push(stack: Stack) -> None:
    stack.github.delay_next("git-receive-pack", DELAY)


def delay_after_push(stack: Stack) -> None:
    stack.github.fail_next("git-receive-pack", None, after=True, delay=DELAY)


def delay_before_finding(stack: Stack) -> None:
    stack.github.delay_next("pulls/list", DELAY)


def delay_before_creating(stack: Stack) -> None:
    stack.github.delay_next("pulls/create", DELAY)


def delay_after_creating(stack: Stack) -> None:
    stack.github.fail_next("pulls/create", 502, after=True, delay=DELAY)


@pytest.mark.parametrize(
    "delay",
    [
        delay_before_push,
        delay_in_push,
        delay_after_push,
        delay_before_finding,
        delay_before_creating,
        delay_after_creating,
    ],
)
def test_cancel_while_publishing(stack: Stack, delay: Callable[[Stack], None]):
    client, name = stack.new_repository()
    delay(stack)
    job_id = stack.post_job(
        client, stack.script([write("a.txt", "a"), say("Done.")]), branchName=BRANCH
    )
    stack.wait_for(job_id, "publishing")
    eventually(lambda: stack.github.pending_faults == [], 60, "the delayed request has come")
    answered_at = time.monotonic() + DELAY
    assert cancel(stack, job_id)["wasRunning"] is True
    assert_withdrawn(stack, name, answered_at)
    assert_at_rest(stack, job_id)


def test_cancel_while_publishing_to_an_existing_branch(stack: Stack):
    client, name = stack.new_repository()
    stack.github.commit(OWNER, name, BRANCH, {"theirs.txt": "1\n"}, "Begin")
    stack.github.delay_next("pulls/create", DELAY)
    job_id = stack.post_job(
        client, stack.script([write("a.txt", "a"), say("Done.")]), branchName=BRANCH
    )
    stack.wait_for(job_id, "publishing")
    eventually(lambda: stack.github.pending_faults == [], 60, "the delayed request has come")
    cancel(stack, job_id)
    assert_at_rest(stack, job_id)
    pulls = stack.github.pull_requests
    eventually(lambda: [pull.state for pull in pulls(OWNER, name)] == ["closed"], 30, "closed")
    assert stack.github.branches(OWNER, name)[BRANCH] == stack.job(job_id)["head_sha"]
    assert_retry_works(stack, job_id, name)


def test_cancel_after_the_end(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script([write("a.txt", "a"), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName=BRANCH)
    stack.wait_for(job_id, "completed")
    refused = stack.call("POST", f"/jobs/{job_id}/cancel", status=400)
    assert refused == {"error": "Job already finished"}
    job = stack.wait_for(job_id, lambda job: job["phase"] is None)
    assert job["status"] == "completed"
    [pull] = stack.github.pull_requests(OWNER, name)
    assert pull.state == "open"


def test_all_slots_are_free_after_the_cancels(stack: Stack):
    """Must be the last test: two jobs run at once, after all the cancelled jobs above."""
    client, _ = stack.new_repository()
    signal_file = stack.signal_file()
    jobs = [
        stack.post_job(client, stack.script([wait_for_file(signal_file), say("Done.")]))
        for _ in range(2)
    ]
    for job_id in jobs:
        stack.wait_for(job_id, "working")
    signal_file.touch()
    for job_id in jobs:
        stack.wait_for(job_id, "completed")
    assert "never retrieved" not in stack.log.read_text()
