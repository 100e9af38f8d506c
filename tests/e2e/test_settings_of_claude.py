"""MCP servers, an executable of the operator's own, and a single slot."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from agent.executable import find_executable
from domain.failures import FailureCode
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.processes import processes_of
from tests.e2e.steps import say, use, wait_for_file, write
from tests.stack import Stack, eventually, running_stack

# Speaks as much of MCP over stdio as a client needs to call one tool
# (https://modelcontextprotocol.io/specification).
SERVER = """
import json, sys

def answer(request):
    method = request["method"]
    if method == "initialize":
        version = request["params"]["protocolVersion"]
        info = {"name": "tickets", "version": "1"}
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        schema = {"type": "object", "properties": {"number": {"type": "integer"}}}
        tool = {"name": "find", "description": "Find a ticket.", "inputSchema": schema}
        note = {**tool, "name": "note", "description": "Note a ticket in a file."}
        return {"tools": [tool, note]}
    if method == "tools/call":
        number = request["params"]["arguments"]["number"]
        if request["params"]["name"] == "note":
            open("ticket.txt", "w").write(str(number))
        return {"content": [{"type": "text", "text": f"Ticket {number}: the logo is too small."}]}
    return {}

for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        response = {"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}
        print(json.dumps(response), flush=True)
"""

WARNING = "warning: said on standard error ü\u2028"


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("settings")
    server = directory / "server.py"
    server.write_text(SERVER)
    config = directory / "mcp.json"
    command = {"command": sys.executable, "args": ["-I", str(server)]}
    config.write_text(json.dumps({"mcpServers": {"tickets": command}}))
    claude = directory / "claude"
    real = find_executable(None, "/usr/local/bin:/usr/bin:/bin")
    claude.write_text(f"#!/bin/sh\necho '{WARNING}' >&2\nexec {real} \"$@\"\n")
    claude.chmod(0o755)
    with running_stack(
        directory / "stack",
        MAX_CONCURRENT_JOBS="1",
        MCP_CONFIG=str(config),
        CLAUDE_BIN=str(claude),
        SANDBOX_READ=f"{server}:{sys.prefix}:{sys.base_prefix}",
    ) as stack:
        yield stack


@pytest.mark.parametrize("job_type", ["task", "code"])
def test_tools_of_an_mcp_server_can_be_used(own_stack: Stack, job_type: str):
    client, _ = own_stack.new_repository()
    prompt = own_stack.script([use("mcp__tickets__find", number=7), say("It is about the logo.")])
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
def test_a_server_that_writes_into_the_worktree_of_a_conversation(own_stack: Stack):
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
    gate = own_stack.gate()
    prompt = own_stack.script([say("Which one?"), say("Fine.")])
    task = own_stack.post_job(client, prompt, jobType="task")
    own_stack.wait_for(task, "waiting_for_user")
    assert processes_of(task) == []

    prompt = own_stack.script([wait_for_file(gate), write("a.txt", "a"), say("Done.")])
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
    gate.touch()
    own_stack.wait_for(code, "completed")
    own_stack.wait_for(task, lambda job: job["result"] == "Fine.")
    own_stack.wait_for(task, "waiting_for_user")
    own_stack.call("POST", f"/jobs/{task}/complete")
    own_stack.wait_for(task, "completed")
