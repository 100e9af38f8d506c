"""After any stop or kill, jobs and conversations continue where they were, exactly once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.jobs import JobType
from host.session_resume import SESSION_LOST_NOTICES
from tests.e2e.failing import notices
from tests.e2e.processes import commands_of, processes
from tests.e2e.steps import COMMIT_ALL, bash, overwrite_session, say, wait_for_file, write
from tests.stack import OWNER, Stack, eventually, running_stack

SETTINGS = {"DRAIN_TIMEOUT_SECONDS": "1", "MAX_CONCURRENT_JOBS": "3"}
RECOVERY_SECONDS = 30
"""Takes 15 to 20 s on an idle host."""


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root: Path = tmp_path_factory.mktemp("restarts")
    with running_stack(root, **SETTINGS) as stack:
        yield stack


def sessions(stack: Stack, prompt: str) -> list[str]:
    """Return the session of each model call of the prompt's script."""
    name = prompt.rpartition("[[script:")[2].partition("]]")[0]
    requests = [request for request in stack.model.requests(name) if request["main"]]
    return [request["headers"]["x-claude-code-session-id"] for request in requests]


def kill(stack: Stack, words: str) -> None:
    [pid] = stack.pids(words)
    os.kill(pid, signal.SIGKILL)


def working_job(stack: Stack, client: str, signal_file: Path) -> tuple[str, str]:
    """Start a code job that has one commit and waits in a command; a second commit follows."""
    prompt = stack.script(
        [
            bash(f"echo 1 > one.txt; {COMMIT_ALL} one"),
            wait_for_file(signal_file),
            bash(f"echo 2 > two.txt; {COMMIT_ALL} two"),
            write("three.txt", "3\n"),
            say("All three."),
        ]
    )
    job_id = stack.post_job(client, prompt, branchName="feature/x", title="Three files")
    eventually(lambda: len(sessions(stack, prompt)) == 2, 60, "the second command is given")
    eventually(lambda: commands_of(job_id, str(signal_file)), 60, "the second command runs")
    return job_id, prompt


def assert_done_once(stack: Stack, name: str, job_id: str, prompt: str) -> None:
    job = stack.wait_for(job_id, "completed", 90)
    assert sessions(stack, prompt) == [job_id] * 5
    assert (job["lease"], job["attempt"]) == (2, 2)
    assert job["result"] == "All three."
    [pull] = stack.github.pull_requests(OWNER, name)
    assert (job["pr_number"], job["head_sha"]) == (pull.number, pull.head_sha)
    history = [entry.subject for entry in stack.github.log(OWNER, name, "feature/x")]
    assert history == ["Three files", "two", "one", "Initial commit"]
    seqs = [message["seq"] for message in stack.messages(job_id)]
    assert seqs == list(range(1, len(seqs) + 1))


def test_ctrl_c_and_a_restart(own_stack: Stack):
    client, name = own_stack.new_repository()
    question = own_stack.script([say("Which?"), say("That one, then.")])
    task = own_stack.post_job(client, f"Ask me. {question}", jobType="task")
    own_stack.wait_for(task, "waiting_for_user")
    job_id, prompt = working_job(own_stack, client, own_stack.signal_file())

    own_stack.stop()
    root = str(own_stack.root).encode()
    left = [each for each in processes() if root in each.environment or root in each.command]
    assert left == []
    assert "Stopping" in own_stack.log.read_text()
    own_stack.start(**SETTINGS)

    assert own_stack.job(task)["phase"] == "waiting_for_user"
    assert_done_once(own_stack, name, job_id, prompt)
    own_stack.call("POST", f"/jobs/{task}/message", {"message": "The first."})
    own_stack.wait_for(task, lambda job: job["result"] == "That one, then.")
    assert sessions(own_stack, question) == [task, task]
    script = question[9:-2]
    history = json.dumps(own_stack.model.requests(script)[-1]["body"]["messages"])
    assert "Which?" in history
    assert "The first." in history
    own_stack.call("POST", f"/jobs/{task}/complete")
    own_stack.wait_for(task, "completed")


def test_a_killed_worker(own_stack: Stack):
    """A job and a conversation are in a turn; the pull request of another job was just created."""
    client, name = own_stack.new_repository()
    other_client, other_name = own_stack.new_repository()
    job_id, prompt = working_job(own_stack, client, own_stack.signal_file())
    question = own_stack.script([{"drop": "hang"}, say("The answer.")])
    task = own_stack.post_job(client, f"The question. {question}", jobType="task")
    eventually(lambda: sessions(own_stack, question), 60, "the model is asked")
    other_prompt = own_stack.script([write("a.txt", "a"), say("Done.")])
    own_stack.github.fail_next("pulls/create", 502, after=True, delay=5)
    other_id = own_stack.post_job(other_client, other_prompt, branchName="feature/y")
    eventually(lambda: own_stack.github.pull_requests(OWNER, other_name), 60, "it is made")

    killed_at = time.monotonic()
    kill(own_stack, "worker --embedded")
    eventually(lambda: len(sessions(own_stack, prompt)) > 2, RECOVERY_SECONDS, "Claude goes on")
    assert time.monotonic() - killed_at < RECOVERY_SECONDS
    assert_done_once(own_stack, name, job_id, prompt)

    other = own_stack.wait_for(other_id, "completed")
    [pull] = own_stack.github.pull_requests(OWNER, other_name)
    assert (other["pr_number"], pull.state) == (pull.number, "open")
    assert len(own_stack.github.log(OWNER, other_name, "feature/y")) == 2
    assert sessions(own_stack, other_prompt) == [other_id] * 2

    job = own_stack.wait_for(task, "waiting_for_user")
    assert (job["result"], job["lease"]) == ("The answer.", 2)
    assert sessions(own_stack, question) == [task, task]
    asked = json.dumps(own_stack.model.requests(question[9:-2])[-1]["body"]["messages"])
    assert asked.count("The question.") == 1
    own_stack.call("POST", f"/jobs/{task}/cancel")


def test_killed_temporal_and_api(own_stack: Stack):
    client, name = own_stack.new_repository()
    signal_file = own_stack.signal_file()
    prompt = own_stack.script([wait_for_file(signal_file), write("a.txt", "a"), say("Done.")])
    job_id = own_stack.post_job(client, prompt, branchName="feature/x")
    own_stack.wait_for(job_id, "working")
    kill(own_stack, "temporal server start-dev")
    kill(own_stack, "api --embedded")
    eventually(own_stack.is_healthy, 60, "all is up again")
    signal_file.touch()
    job = own_stack.wait_for(job_id, "completed", 90)
    assert (job["lease"], job["attempt"]) == (1, 1)
    assert len(own_stack.github.pull_requests(OWNER, name)) == 1


def test_a_session_lost_in_a_crash_restarts_with_the_existing_work(
    own_stack: Stack,
):
    client, name = own_stack.new_repository()
    emptied = bash(f"{overwrite_session('')}; kill -9 $PPID")
    prompt = own_stack.script([write("one.txt", "1\n"), emptied, say("Finished.")])
    job_id = own_stack.post_job(client, prompt, branchName="feature/x", title="One file")

    job = own_stack.wait_for(job_id, "completed", 60)

    assert (job["result"], job["attempt"]) == ("Finished.", 2)
    assert SESSION_LOST_NOTICES[JobType.CODE] in notices(own_stack, job_id)
    assert sessions(own_stack, prompt) == [job_id] * 3
    assert own_stack.github.read_file(OWNER, name, "feature/x", "one.txt") == "1\n"
