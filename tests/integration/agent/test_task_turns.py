from __future__ import annotations

import asyncio
import json
import socket
import sys

from agent.claude.arguments import Launch
from agent.message_queue import MessageQueue
from agent.turn import run_turn
from domain.jobs import JobType
from fakes.anthropic.steps import Step
from tests.integration.agent.conftest import Lines, ScriptedJob, git, until, user_message

SECRET = "a-secret-outside-of-the-worktree"

MCP_SERVER = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    method, answer = request.get("method"), None
    if method == "initialize":
        answer = {
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "weather", "version": "1"},
        }
    elif method == "tools/list":
        answer = {"tools": [{"name": "ask", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        answer = {"content": [{"type": "text", "text": "It rains in Ghent."}]}
    if "id" in request:
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        reply |= {"result": answer} if answer else {"error": {"code": -32601, "message": "no"}}
        print(json.dumps(reply), flush=True)
"""


def task(job: ScriptedJob, **changes: object) -> Launch:
    return job.launch(JobType.TASK, **changes)


async def test_a_task_can_read_only_its_worktree(job: ScriptedJob) -> None:
    git(job.cwd, "init", "-q")
    (job.cwd / "README").write_text("The readme.\n")
    git(job.cwd, "add", "-A")
    git(job.cwd, "commit", "-qm", "start")
    outside = job.base / "outside.txt"
    outside.write_text(SECRET)
    (job.cwd / "link").symlink_to(outside)
    git(job.cwd, "add", "-A")
    git(job.cwd, "commit", "-qm", "link")
    job.script(
        {"tools": [["Read", {"file_path": "$CWD/README"}]]},
        {"tools": [["Write", {"file_path": "$CWD/new", "content": "x"}]]},
        {
            "tools": [
                [
                    "Edit",
                    {
                        "file_path": "$CWD/README",
                        "old_string": "The",
                        "new_string": "A",
                    },
                ]
            ]
        },
        {"tools": [["Bash", {"command": "touch new; git commit --allow-empty -m x"}]]},
        {"tools": [["NotebookEdit", {"notebook_path": "$CWD/n.ipynb", "new_source": "x"}]]},
        {"tools": [["Agent", {"description": "x", "prompt": "write"}]]},
        {"tools": [["Read", {"file_path": "/etc/hostname"}]]},
        {"tools": [["Read", {"file_path": str(outside)}]]},
        {"tools": [["Read", {"file_path": "$CWD/link"}]]},
        {"tools": [["Grep", {"pattern": SECRET, "path": str(job.base), "output_mode": "content"}]]},
        {"text": "I tried."},
    )
    lines = Lines()

    report = await job.turn(f"See @{outside} and @/etc/hostname", task(job), lines=lines)

    assert report.result.answer == "I tried.", lines.text
    assert len(job.requests) == 11
    refusals = tool_results(job)
    assert "The readme." in refusals[0]
    assert all('"is_error": true' in refusal for refusal in refusals[1:]), refusals
    assert SECRET not in json.dumps(job.requests[-1]["body"]["messages"]).replace(
        f'"pattern": "{SECRET}"', ""
    )
    assert socket.gethostname() not in "".join(refusals)
    assert git(job.cwd, "status", "--porcelain") == ""
    assert git(job.cwd, "rev-list", "--count", "HEAD") == "2\n"
    assert sorted(path.name for path in job.cwd.iterdir()) == [".git", "README", "link"]


async def test_a_task_calls_the_tools_of_an_mcp_server(job: ScriptedJob) -> None:
    server = job.base / "server.py"
    server.write_text(MCP_SERVER)
    config = job.base / "mcp.json"
    command = {"command": sys.executable, "args": [str(server)]}
    config.write_text(json.dumps({"mcpServers": {"weather": command, "other": command}}))
    job.script(
        {"tools": [["mcp__weather__ask", {}]]},
        {"tools": [["mcp__other__ask", {}]]},
        {"text": "Rain."},
    )

    launch = task(
        job, mcp_config=config, mcp_servers=("weather",), task_tools=("WebSearch", "WebFetch")
    )
    report = await job.turn("How is the weather?", launch, keep_open=True)

    assert report.result.answer == "Rain."
    allowed, refused = tool_results(job)
    assert "It rains in Ghent." in allowed
    assert "It rains in Ghent." not in refused
    offered = {tool["name"] for tool in job.requests[0]["body"]["tools"]}
    assert {"Read", "Grep", "Glob", "WebSearch", "WebFetch", "mcp__weather__ask"} <= offered
    assert not offered & {"Write", "Edit", "Bash", "NotebookEdit", "Agent"}


async def test_a_message_during_a_turn_is_answered_by_the_same_process(job: ScriptedJob) -> None:
    job.script({"text": "Thinking...", "chunk": 1, "chunk_delay": 0.05}, {"text": "Both."})
    first, second = user_message("First question."), user_message("Second question.")
    queue = MessageQueue()
    async with job.process(task(job)) as process:
        running = asyncio.create_task(
            run_turn(process, [first], keep_open=True, on_line=Lines(), queue=queue)
        )
        await until(lambda: bool(job.requests))
        assert await queue.offer(second) is True
        report = await running

    assert report.consumed == [first.id, second.id]
    assert report.result.answer == "Both."
    assert report.exit_code == 0
    assert "Second question." in json.dumps(job.requests[-1]["body"]["messages"])


async def test_a_message_offered_again_is_delivered_once(job: ScriptedJob) -> None:
    job.script({"text": "Thinking...", "chunk": 1, "chunk_delay": 0.05}, {"text": "Both."})
    first, second = user_message("First question."), user_message("Second question.")
    queue = MessageQueue()
    async with job.process(task(job)) as process:
        running = asyncio.create_task(
            run_turn(process, [first], keep_open=True, on_line=Lines(), queue=queue)
        )
        await until(lambda: bool(job.requests))
        impatient = queue.offer(second)
        impatient.cancel()
        answers = await asyncio.gather(*map(queue.offer, (second, first, second)))
        report = await running

    assert answers == [True, True, True]
    assert report.consumed == [first.id, second.id]
    assert len(job.requests) == 2
    assert await queue.offer(second) is True


async def test_a_message_that_is_in_the_session_does_not_hang(job: ScriptedJob) -> None:
    job.script({"text": "Hello."}, {"text": "Not asked for."})
    first = user_message("Hello.")
    async with job.process(task(job)) as process:
        await run_turn(process, [first], keep_open=True, on_line=Lines(), queue=MessageQueue())
    async with job.process(task(job, resume=True)) as process:
        report = await run_turn(
            process, [first], keep_open=True, on_line=Lines(), queue=MessageQueue()
        )

    assert report.consumed == [first.id]
    assert report.result.failure is not None
    assert len(job.requests) == 1


async def test_several_messages_at_once_are_all_answered(job: ScriptedJob) -> None:
    job.script(
        {"text": "Reading.", "tools": [["Glob", {"pattern": "*"}]], "delay": 0.5},
        *[Step(text=f"Answer {number}.") for number in range(4)],
    )
    messages = [user_message(f"Question {number}.") for number in range(4)]
    queue = MessageQueue()
    async with job.process(task(job)) as process:
        running = asyncio.create_task(
            run_turn(process, messages[:1], keep_open=True, on_line=Lines(), queue=queue)
        )
        await until(lambda: bool(job.requests))
        answers = await asyncio.gather(*(queue.offer(message) for message in messages[1:]))
        report = await running
        transcript = await process.session_file()

    assert answers == [True, True, True]
    assert report.consumed == [message.id for message in messages]
    sent = json.dumps(job.requests[-1]["body"]["messages"])
    assert all(message.text in sent for message in messages)
    assert transcript is not None


async def test_a_message_after_the_turn_belongs_to_the_next_one(job: ScriptedJob) -> None:
    job.script({"text": "Done."}, {"text": "Not asked for."})
    queue = MessageQueue()
    async with job.process(task(job)) as process:
        first = user_message("Hello.")
        await run_turn(process, [first], keep_open=True, on_line=Lines(), queue=queue)
        assert await queue.offer(user_message("Too late.")) is False

    assert len(job.requests) == 1


async def test_a_message_at_the_end_of_a_turn_is_answered_or_refused(
    job: ScriptedJob,
) -> None:
    job.script({"text": "One."}, {"text": "Two."})
    first, second = user_message("Hello."), user_message("At the last moment.")
    queue = MessageQueue()
    offers: list[asyncio.Future[bool]] = []

    class OfferAtResult(Lines):
        async def __call__(self, line: object) -> None:
            if '"type":"result"' in getattr(line, "text", "") and not offers:
                offers.append(queue.offer(second))

    async with job.process(task(job)) as process:
        report = await run_turn(
            process, [first], keep_open=True, on_line=OfferAtResult(), queue=queue
        )

    accepted = await offers[0]
    assert (second.id in report.consumed) is accepted
    assert len(job.requests) == (2 if accepted else 1)


def tool_results(job: ScriptedJob) -> list[str]:
    """Return the results of the tools as the model received them; errors are marked."""
    found: list[str] = []
    for message in job.requests[-1]["body"]["messages"]:
        if isinstance(message["content"], list):
            for block in message["content"]:
                if block["type"] == "tool_result":
                    found.append(json.dumps(block))
    return found
