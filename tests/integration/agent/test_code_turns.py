from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from pathlib import Path

import pytest
import uvloop

from agent.claude.process import ClaudeProcess
from agent.claude.session_files import SessionFiles, holds_message
from agent.message_queue import MessageQueue
from agent.turn import run_turn
from tests.integration.agent.conftest import (
    Lines,
    ScriptedJob,
    git,
    processes_of,
    until,
    user_message,
)

SLEEPING = "import time; time.sleep(60)"


async def test_a_code_turn_writes_and_commits(job: ScriptedJob) -> None:
    git(job.cwd, "init", "-q")
    job.script(
        {"text": "Writing.", "tools": [["Write", {"file_path": "$CWD/a.txt", "content": "hi\n"}]]},
        {"tools": [["Bash", {"command": "git add -A && git commit -qm add"}]]},
        {"text": "Done."},
    )
    lines = Lines()

    report = await job.turn("Add a file.", lines=lines)

    assert report.result.failure is None, lines.text
    assert (report.exit_code, report.result.answer) == (0, "Done.")
    assert git(job.cwd, "log", "--format=%an %s") == "A add\n"
    assert git(job.cwd, "show", "HEAD:a.txt") == "hi\n"
    assert len(report.consumed) == 1
    assert report.result.session_id == job.session_id
    assert report.result.model == "claude-opus-5-5"
    assert (report.result.usage.turns, report.result.usage.input_tokens) == (3, 300)
    assert "Rules of the house." in json.dumps(job.requests[0]["body"]["system"])


async def test_a_system_prompt_may_be_longer_than_an_argument(job: ScriptedJob) -> None:
    job.script({"text": "Done."})
    rules = "Rule. " * 50_000 + "The last rule."

    report = await job.turn("Go.", job.launch(system_prompt=rules))

    assert report.result.failure is None
    assert "The last rule." in json.dumps(job.requests[0]["body"]["system"])


async def test_no_secret_of_the_orchestrator_reaches_a_command(job: ScriptedJob) -> None:
    job.script({"tools": [["Bash", {"command": "env"}]]}, {"text": "Done."})
    lines = Lines()

    await job.turn("Show the environment.", lines=lines)

    assert f"ORCHESTRATOR_RUN={job.marker}" in lines.text
    for name in ("GITHUB_TOKEN", "GH_TOKEN", "SUPABASE_", "AGENT_API_SECRET"):
        assert name not in lines.text


async def test_a_prompt_is_neither_a_command_nor_an_attachment(job: ScriptedJob) -> None:
    job.script({"text": "Done."})
    outside = job.base / "outside.txt"
    outside.write_text("the content of a file")

    report = await job.turn(f"/clear @{outside}")

    assert report.result.session_id == job.session_id
    sent = json.dumps(job.requests[0]["body"]["messages"])
    assert f"/clear @{outside}" in sent
    assert "the content of a file" not in sent


async def test_the_repository_cannot_run_code_at_the_start(job: ScriptedJob) -> None:
    hook = {"hooks": [{"type": "command", "command": f"touch {job.base}/hooked"}]}
    server = {"command": "touch", "args": [f"{job.base}/served"]}
    (job.cwd / ".claude").mkdir()
    settings = {"hooks": {"SessionStart": [hook]}, "enableAllProjectMcpServers": True}
    (job.cwd / ".claude" / "settings.json").write_text(json.dumps(settings))
    (job.cwd / ".mcp.json").write_text(json.dumps({"mcpServers": {"planted": server}}))
    job.script({"text": "Done."})

    report = await job.turn("Go.")

    assert report.result.answer == "Done."
    assert not (job.base / "hooked").exists()
    assert not (job.base / "served").exists()


async def test_a_session_resumes_after_its_process_was_killed(job: ScriptedJob) -> None:
    job.script(
        {"tools": [["Write", {"file_path": "$CWD/a.txt", "content": "hi\n"}]]},
        {"tools": [["Bash", {"command": f'python3 -c "{SLEEPING}"'}]]},
        {"text": "Continued."},
    )
    first = user_message("Do the first thing.")
    async with job.process() as process:
        running = asyncio.create_task(
            run_turn(process, [first], keep_open=False, on_line=Lines(), queue=MessageQueue())
        )
        await until(lambda: SLEEPING in command_lines(job))
        os.kill(process.pid, signal.SIGKILL)
        report = await running

    assert report.result.failure is not None
    assert report.result.failure.transient
    assert report.exit_code == -signal.SIGKILL
    assert report.consumed == [first.id]
    assert processes_of(job.marker) == []

    resumed = await job.turn("Go on.", job.launch(resume=True))

    assert resumed.result.answer == "Continued."
    assert resumed.result.session_id == job.session_id
    assert "Do the first thing." in json.dumps(job.requests[-1]["body"]["messages"])


async def test_a_session_moves_to_another_host_with_its_file(job: ScriptedJob) -> None:
    job.script({"text": "One."}, {"text": "Two."})
    first = user_message("Remember me.")
    async with job.process() as process:
        report = await run_turn(
            process, [first], keep_open=False, on_line=Lines(), queue=MessageQueue()
        )
        transcript = await process.session_file()
    assert transcript is not None
    assert holds_message(transcript, first.id)
    assert not holds_message(transcript, str(uuid.uuid4()))

    elsewhere = job.base / "elsewhere"
    job.changes["CLAUDE_CONFIG_DIR"] = str(elsewhere)
    moved = SessionFiles(elsewhere, job.cwd, job.session_id)
    moved.restore(transcript)
    resumed = await job.turn("And now?", job.launch(resume=True))

    assert resumed.result.answer == "Two."
    assert "Remember me." in json.dumps(job.requests[-1]["body"]["messages"])
    grown = moved.read()
    assert grown is not None
    assert len(grown) > len(transcript)
    # The CLI continues counting from the session file; each report has only its own part.
    assert report.result.usage == resumed.result.usage
    assert resumed.result.usage.input_tokens == 100
    assert resumed.result.usage.cost_usd is not None


@pytest.mark.parametrize(
    "name", ["plain/a.b_c", "caf\u00e9 \U0001f600", "x" * 120 + "/" + "y" * 120, "link"]
)
async def test_a_session_file_is_where_the_cli_writes_it(job: ScriptedJob, name: str) -> None:
    """The CLI derives its directory from the working directory."""
    cwd = job.base / name
    if name == "link":
        cwd.symlink_to(job.cwd)
    else:
        cwd.mkdir(parents=True)
    job.script({"text": "Done."})
    first = user_message("Hello.")
    async with await ClaudeProcess.start(
        job.executable, job.launch(), job.environment, cwd
    ) as process:
        await run_turn(process, [first], keep_open=False, on_line=Lines(), queue=MessageQueue())
        transcript = await process.session_file()
    assert transcript is not None
    assert holds_message(transcript, first.id)


async def test_the_cli_resumes_from_the_restored_file(job: ScriptedJob) -> None:
    """Newer files of the job in other directories are ignored."""
    job.script({"text": "One."})
    await job.turn("My word is apple.")
    files = SessionFiles(job.config_dir, job.cwd, job.session_id)
    apple = files.read()
    assert apple is not None
    projects = job.config_dir / "projects"
    for directory, words in (("aa", b"banana"), ("restored", b"cherry"), ("zz", None)):
        other = projects / directory / f"{job.session_id}.jsonl"
        other.parent.mkdir()
        if words is None:
            os.mkfifo(other)
        else:
            other.write_bytes(apple.replace(b"apple", words))
        os.utime(other, (2**33, 2**33))
    files.restore(apple)

    job.script({"text": "Two."})
    report = await job.turn("Which is it?", job.launch(resume=True))

    assert report.result.answer == "Two."
    asked = json.dumps(job.requests[-1]["body"]["messages"])
    assert [word in asked for word in ("apple", "banana", "cherry")] == [True, False, False]
    grown = files.read()
    assert grown is not None
    assert grown.startswith(apple)
    assert len(grown) > len(apple)


async def test_a_message_is_on_disk_before_the_model_call(job: ScriptedJob) -> None:
    job.script({"drop": "hang"})
    first = user_message("Hello.")
    async with job.process() as process:
        await process.send(first.id, first.text)
        await until(lambda: bool(job.requests))
        await process.stop(0)
        transcript = await process.session_file()

    assert transcript is not None
    assert holds_message(transcript, first.id)


def test_a_turn_works_under_uvloop(job: ScriptedJob) -> None:
    job.script({"text": "Done."})
    prompt = "x" * 900_000
    lines = Lines()

    async def turn() -> None:
        report = await job.turn(prompt, lines=lines)
        assert report.result.answer == "Done.", lines.text[-2000:]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(turn())

    assert prompt in json.dumps(job.requests[0]["body"]["messages"])


def command_lines(job: ScriptedJob) -> str:
    """Return the command lines of the job's processes."""
    lines = []
    for pid in processes_of(job.marker):
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode())
        except OSError:
            continue
    return "\n".join(lines)
