"""A usage limit is not a failure: jobs wait without a slot, no job starts, then all resume."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from domain.failures import FailureCode
from fakes.anthropic.steps import Step
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.processes import processes_of
from tests.e2e.steps import say, wait_for_file, write
from tests.stack import OWNER, Json, Stack, eventually, running_stack

LIMIT = "anthropic-ratelimit-unified-"
SECONDS = 25


@pytest.fixture(scope="module")
def subscribed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation with a Claude subscription."""
    root: Path = tmp_path_factory.mktemp("limits")
    with running_stack(
        root,
        ANTHROPIC_API_KEY="",
        CLAUDE_CODE_OAUTH_TOKEN="subscription-token",
        MAX_CONCURRENT_JOBS="2",
    ) as stack:
        yield stack


def used_up(resets_at: float) -> Step:
    return {
        "status": 429,
        "error": "rate_limit_error",
        "message": "usage limit",
        "headers": {
            f"{LIMIT}status": "rejected",
            f"{LIMIT}reset": str(int(resets_at)),
            f"{LIMIT}representative-claim": "five_hour",
        },
    }


def calls(stack: Stack, prompt: str) -> list[Json]:
    name = prompt.rpartition("[[script:")[2].partition("]]")[0]
    return [dict(request) for request in stack.model.requests(name) if request["main"]]


def starts(stack: Stack, job_id: str) -> int:
    lines = [line for line in stack.messages(job_id) if line["type"] == "stdout"]
    events = [json.loads(line["content"]) for line in lines]
    return sum((event["type"], event.get("subtype")) == ("system", "init") for event in events)


def test_jobs_wait_for_the_reset_and_resume_their_sessions(subscribed: Stack) -> None:
    stack = subscribed
    resets_at = time.time() + SECONDS
    signal_file = subscribed.signal_file()
    steps = [
        write("a.txt", "a\n"),
        wait_for_file(signal_file),
        used_up(resets_at),
        write("b.txt", "b\n"),
        say("Ok."),
    ]
    prompts = [stack.script(steps) for _ in range(2)]
    sites = [stack.new_repository() for _ in prompts]
    jobs = [
        stack.post_job(client, prompt, branchName="feature/x")
        for (client, _), prompt in zip(sites, prompts, strict=True)
    ]
    eventually(lambda: [len(calls(stack, prompt)) for prompt in prompts] == [2, 2], 60, "both run")
    signal_file.touch()
    for job_id in jobs:
        job = stack.wait_for(job_id, "waiting_for_limit")
        assert job["status"] == "running"
        assert abs(datetime.fromisoformat(job["resumes_at"]).timestamp() - resets_at) < 5
        assert processes_of(job_id) == []
    queue = stack.call("GET", "/queue")
    assert sorted(entry["id"] for entry in queue["waiting"]) == sorted(jobs)

    # The slots are free, but no job starts with this credential.
    client, _ = stack.new_repository()
    third = stack.post_job(client, "Write a note")
    asked = [len(calls(stack, prompt)) for prompt in prompts]
    while time.time() < resets_at - 1:
        assert stack.job(third)["phase"] == "waiting_for_slot"
        time.sleep(0.5)
    assert [len(calls(stack, prompt)) for prompt in prompts] == asked

    for job_id, prompt, (_, name) in zip(jobs, prompts, sites, strict=True):
        job = stack.wait_for(job_id, "completed", 90)
        assert (job["resumes_at"], job["failure"]) == (None, None)
        assert starts(stack, job_id) == 2
        sessions = {call["headers"]["x-claude-code-session-id"] for call in calls(stack, prompt)}
        assert sessions == {job_id}
        assert job["cost"]["kind"] == "estimated"
        assert job["files_changed"] == 2
        assert len(stack.github.pull_requests(OWNER, name)) == 1
        said = [line["content"] for line in stack.messages(job_id) if line["type"] == "system"]
        assert len([text for text in said if "resumes at" in text]) == 1
    assert stack.wait_for(third, "completed", 90)


def test_a_conversation_waits_and_keeps_its_messages(subscribed: Stack) -> None:
    stack = subscribed
    client, _ = stack.new_repository()
    prompt = stack.script([used_up(time.time() + 8), say("First."), say("Second.")])
    job_id = stack.post_job(client, prompt, jobType="task")
    stack.wait_for(job_id, "waiting_for_limit")
    stack.call("POST", f"/jobs/{job_id}/message", {"message": "And the tests?"})
    stack.call("POST", f"/jobs/{job_id}/complete")
    job = stack.wait_for(job_id, "completed", 90)
    assert job["outcome"] == "answered"
    heard = json.dumps([call["body"]["messages"] for call in calls(stack, prompt)][-1])
    assert heard.count("And the tests?") == 1


@pytest.mark.failure(FailureCode.USAGE_LIMIT)
def test_an_implausible_reset_time_is_not_waited_for(subscribed: Stack) -> None:
    stack = subscribed
    client, name = stack.new_repository()
    in_a_month = time.time() + 30 * 86_400
    prompt = stack.script([write("a.txt", "a\n"), used_up(in_a_month), say("Done.")])
    job = failed_as(stack, stack.post_job(client, prompt), FailureCode.USAGE_LIMIT)
    assert "resets" in job["error"]
    assert job["resumes_at"] is None
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == {"a.txt"}
    # Other jobs can start too.
    stack.wait_for(stack.post_job(client, stack.script([say("Done.")])), "completed")


def test_a_waiting_job_survives_a_restart_and_can_be_cancelled(subscribed: Stack) -> None:
    stack = subscribed
    client, name = stack.new_repository()
    prompt = stack.script([write("a.txt", "a\n"), used_up(time.time() + 30), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    stack.wait_for(job_id, "waiting_for_limit")
    other = stack.post_job(client, stack.script([say("Never asked.")]), jobType="task")
    stack.stop()
    stack.start(ANTHROPIC_API_KEY="", CLAUDE_CODE_OAUTH_TOKEN="subscription-token")
    assert stack.job(job_id)["phase"] == "waiting_for_limit"
    cancelled = stack.call("POST", f"/jobs/{other}/cancel")
    assert cancelled["wasRunning"] is False
    stack.wait_for(job_id, "completed", 90)
    assert starts(stack, job_id) == 2
    assert len(stack.github.pull_requests(OWNER, name)) == 1

    again = stack.script([write("a.txt", "a\n"), used_up(time.time() + 3600), say("Done.")])
    waiting = stack.post_job(client, again, branchName="feature/y")
    stack.wait_for(waiting, "waiting_for_limit")
    assert stack.call("POST", f"/jobs/{waiting}/cancel")["wasRunning"] is True
    eventually(lambda: stack.job(waiting)["phase"] is None, 60, "cleaned up")
    job = stack.job(waiting)
    assert (job["status"], job["resumes_at"]) == ("cancelled", None)
    patch = stack.http.get(f"/jobs/{waiting}/patch")
    assert "a.txt" in patch.text
