"""MCP servers, a replaced executable, and a single slot."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.claude.executable import find_executable
from domain.failures import FailureCode
from tests.e2e import mcp_server
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.processes import processes_of
from tests.e2e.steps import say, use, wait_for_file, write
from tests.stack import Stack, eventually, running_stack

WARNING = "warning: said on standard error ü\u2028"


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("settings")
    real = find_executable(None, "/usr/local/bin:/usr/bin:/bin")
    claude = directory / "claude"
    claude.write_text(f"#!/bin/sh\necho '{WARNING}' >&2\nexec {real} \"$@\"\n")
    claude.chmod(0o755)
    config = directory / "mcp.json"
    command = {"command": sys.executable, "args": ["-I", str(Path(mcp_server.__file__))]}
    signal_files = directory / "stack" / "signal_files"
    signal_files.mkdir(parents=True)
    # Files that the two programs need in addition to their own.
    visible = (signal_files, real.parent, sys.prefix, sys.base_prefix)
    with mcp_server.serving_http() as url:
        remote = {"type": "http", "url": url}
        config.write_text(json.dumps({"mcpServers": {"tickets": command, "remote": remote}}))
        with running_stack(
            directory / "stack",
            MAX_CONCURRENT_JOBS="1",
            MCP_CONFIG=str(config),
            CLAUDE_BIN=str(claude),
            SANDBOX_READ=":".join(map(str, visible)),
            SANDBOX_NETWORK="none",
        ) as stack:
            yield stack


@pytest.mark.parametrize("server", ["tickets", "remote"])
@pytest.mark.parametrize("job_type", ["task", "code"])
def test_tools_of_an_mcp_server_can_be_used(own_stack: Stack, job_type: str, server: str):
    client, _ = own_stack.new_repository()
    prompt = own_stack.script([use(f"mcp__{server}__find", number=7), say("It is about the logo.")])
    job_id = own_stack.post_job(client, prompt, jobType=job_type)
    own_stack.wait_for(job_id, lambda job: job["result"] == "It is about the logo.")

    lines = [m["content"] for m in own_stack.messages(job_id) if m["type"] == "stdout"]
    results = [json.loads(line) for line in lines if '"tool_result"' in line]
    assert "Ticket 7: the logo is too small." in json.dumps(results)
    # The server is a child of the CLI and ends with it.
    eventually(lambda: processes_of(job_id) == [], 30, "nothing runs on")
    if job_type == "task":
        own_stack.call("POST", f"/jobs/{job_id}/cancel")


@pytest.mark.failure(FailureCode.TASK_CHANGED_FILES)
def test_an_mcp_server_that_writes_into_the_worktree_of_a_conversation(own_stack: Stack):
    client, name = own_stack.new_repository()
    prompt = own_stack.script([use("mcp__tickets__note", number=7), say("I noted it.")])
    job_id = own_stack.post_job(client, prompt, jobType="task")
    job = failed_as(own_stack, job_id, FailureCode.TASK_CHANGED_FILES)
    assert "Changed: ticket.txt." in job["error"]
    assert_unpublished(own_stack, name)
    assert kept_files(own_stack, job_id) == {"ticket.txt"}


def test_standard_error_is_stored(own_stack: Stack):
    client, _ = own_stack.new_repository()
    job_id = own_stack.post_job(client, own_stack.script([say("Done.")]))
    own_stack.wait_for(job_id, "completed")
    said = [m["content"] for m in own_stack.messages(job_id) if m["type"] == "stderr"]
    assert said == [WARNING]


def test_a_conversation_that_waits_for_its_user_holds_no_slot(own_stack: Stack):
    client, _ = own_stack.new_repository()
    signal_file = own_stack.signal_file()
    prompt = own_stack.script([say("Which one?"), say("Fine.")])
    task = own_stack.post_job(client, prompt, jobType="task")
    own_stack.wait_for(task, "waiting_for_user")
    assert processes_of(task) == []

    prompt = own_stack.script([wait_for_file(signal_file), write("a.txt", "a"), say("Done.")])
    code = own_stack.post_job(client, prompt)
    own_stack.wait_for(code, "working")
    queue = own_stack.call("GET", "/queue")
    assert [entry["id"] for entry in queue["running"]] == [code]
    assert [entry["id"] for entry in queue["waiting"]] == [task]
    assert queue["queued"] == []
    assert queue["maxConcurrent"] == 1

    # Its next turn waits for the only slot.
    own_stack.call("POST", f"/jobs/{task}/message", {"message": "The first."})
    own_stack.wait_for(task, "waiting_for_slot")
    queue = own_stack.call("GET", "/queue")
    assert [entry["id"] for entry in queue["running"]] == [code]
    assert [(entry["id"], entry["position"]) for entry in queue["queued"]] == [(task, 1)]
    assert own_stack.job(task)["status"] == "running"
    signal_file.touch()
    own_stack.wait_for(code, "completed")
    own_stack.wait_for(task, lambda job: job["result"] == "Fine.")
    own_stack.wait_for(task, "waiting_for_user")
    own_stack.call("POST", f"/jobs/{task}/complete")
    own_stack.wait_for(task, "completed")
