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
from agent.message_queue import Inbox
from agent.turn import run_turn
from tests.integration.agent.conftest import Lines, Room, git, processes_of, until, user_message

SLEEPING = "import time; time.sleep(60)"


async def test_a_code_turn_writes_and_commits(room: Room) -> None:
    git(room.cwd, "init", "-q")
    room.script(
        {"text": "Writing.", "tools": [["Write", {"file_path": "$CWD/a.txt", "content": "hi\n"}]]},
        {"tools": [["Bash", {"command": "git add -A && git commit -qm add"}]]},
        {"text": "Done."},
    )
    lines = Lines()

    report = await room.turn("Add a file.", lines=lines)

    assert report.verdict.failure is None, lines.text
    assert (report.exit_code, report.verdict.answer) == (0, "Done.")
    assert git(room.cwd, "log", "--format=%an %s") == "A add\n"
    assert git(room.cwd, "show", "HEAD:a.txt") == "hi\n"
    assert len(report.consumed) == 1
    assert report.verdict.session_id == room.session_id
    assert report.verdict.model == "claude-opus-5-5"
    assert (report.verdict.usage.turns, report.verdict.usage.input_tokens) == (3, 300)
    assert "Rules of the house." in json.dumps(room.requests[0]["body"]["system"])


async def test_a_system_prompt_may_be_longer_than_an_argument(room: Room) -> None:
    room.script({"text": "Done."})
    rules = "Rule. " * 50_000 + "The last rule."

    report = await room.turn("Go.", room.launch(system_prompt=rules))

    assert report.verdict.failure is None
    assert "The last rule." in json.dumps(room.requests[0]["body"]["system"])


async def test_no_secret_of_the_orchestrator_reaches_a_command(room: Room) -> None:
    room.script({"tools": [["Bash", {"command": "env"}]]}, {"text": "Done."})
    lines = Lines()

    await room.turn("Show the environment.", lines=lines)

    assert f"ORCHESTRATOR_RUN={room.marker}" in lines.text
    for name in ("GITHUB_TOKEN", "GH_TOKEN", "SUPABASE_", "AGENT_API_SECRET"):
        assert name not in lines.text


async def test_text_is_neither_a_command_nor_an_attachment(room: Room) -> None:
    room.script({"text": "Done."})
    outside = room.base / "outside.txt"
    outside.write_text("the content of a file")

    report = await room.turn(f"/clear @{outside}")

    assert report.verdict.session_id == room.session_id
    sent = json.dumps(room.requests[0]["body"]["messages"])
    assert f"/clear @{outside}" in sent
    assert "the content of a file" not in sent


async def test_the_repository_cannot_run_code_at_the_start(room: Room) -> None:
    hook = {"hooks": [{"type": "command", "command": f"touch {room.base}/hooked"}]}
    server = {"command": "touch", "args": [f"{room.base}/served"]}
    (room.cwd / ".claude").mkdir()
    settings = {"hooks": {"SessionStart": [hook]}, "enableAllProjectMcpServers": True}
    (room.cwd / ".claude" / "settings.json").write_text(json.dumps(settings))
    (room.cwd / ".mcp.json").write_text(json.dumps({"mcpServers": {"planted": server}}))
    room.script({"text": "Done."})

    report = await room.turn("Go.")

    assert report.verdict.answer == "Done."
    assert not (room.base / "hooked").exists()
    assert not (room.base / "served").exists()


async def test_a_session_goes_on_after_its_process_was_killed(room: Room) -> None:
    room.script(
        {"tools": [["Write", {"file_path": "$CWD/a.txt", "content": "hi\n"}]]},
        {"tools": [["Bash", {"command": f'python3 -c "{SLEEPING}"'}]]},
        {"text": "Continued."},
    )
    first = user_message("Do the first thing.")
    async with room.process() as process:
        running = asyncio.create_task(
            run_turn(process, [first], keep_open=False, on_line=Lines(), inbox=Inbox())
        )
        await until(lambda: SLEEPING in command_lines(room))
        os.kill(process.pid, signal.SIGKILL)
        report = await running

    assert report.verdict.failure is not None
    assert report.verdict.failure.transient
    assert report.exit_code == -signal.SIGKILL
    assert report.consumed == [first.id]
    assert processes_of(room.marker) == []

    resumed = await room.turn("Go on.", room.launch(resume=True))

    assert resumed.verdict.answer == "Continued."
    assert resumed.verdict.session_id == room.session_id
    assert "Do the first thing." in json.dumps(room.requests[-1]["body"]["messages"])


async def test_a_session_moves_to_another_machine_with_its_transcript(room: Room) -> None:
    room.script({"text": "One."}, {"text": "Two."})
    first = user_message("Remember me.")
    async with room.process() as process:
        report = await run_turn(process, [first], keep_open=False, on_line=Lines(), inbox=Inbox())
        transcript = await process.transcript()
    assert transcript is not None
    assert holds_message(transcript, first.id)
    assert not holds_message(transcript, str(uuid.uuid4()))

    elsewhere = room.base / "elsewhere"
    room.changes["CLAUDE_CONFIG_DIR"] = str(elsewhere)
    moved = SessionFiles(elsewhere, room.cwd, room.session_id)
    moved.restore(transcript)
    resumed = await room.turn("And now?", room.launch(resume=True))

    assert resumed.verdict.answer == "Two."
    assert "Remember me." in json.dumps(room.requests[-1]["body"]["messages"])
    grown = moved.read()
    assert grown is not None
    assert len(grown) > len(transcript)
    # The CLI counts on from the transcript; each report has its own part only.
    assert report.verdict.usage == resumed.verdict.usage
    assert resumed.verdict.usage.input_tokens == 100
    assert resumed.verdict.usage.cost_usd is not None


@pytest.mark.parametrize(
    "name", ["plain/a.b_c", "caf\u00e9 \U0001f600", "x" * 120 + "/" + "y" * 120, "link"]
)
async def test_a_transcript_is_where_the_cli_has_it(room: Room, name: str) -> None:
    """The CLI names its directory after the working directory."""
    cwd = room.base / name
    if name == "link":
        cwd.symlink_to(room.cwd)
    else:
        cwd.mkdir(parents=True)
    room.script({"text": "Done."})
    first = user_message("Hello.")
    async with await ClaudeProcess.start(
        room.executable, room.launch(), room.environment, cwd
    ) as process:
        await run_turn(process, [first], keep_open=False, on_line=Lines(), inbox=Inbox())
        transcript = await process.transcript()
    assert transcript is not None
    assert holds_message(transcript, first.id)


async def test_the_restored_transcript_is_the_one_that_is_resumed(room: Room) -> None:
    """Whatever a job has left in other directories, and however new it is."""
    room.script({"text": "One."})
    await room.turn("My word is apple.")
    files = SessionFiles(room.config_dir, room.cwd, room.session_id)
    apple = files.read()
    assert apple is not None
    projects = room.config_dir / "projects"
    for directory, words in (("aa", b"banana"), ("restored", b"cherry"), ("zz", None)):
        other = projects / directory / f"{room.session_id}.jsonl"
        other.parent.mkdir()
        if words is None:
            os.mkfifo(other)
        else:
            other.write_bytes(apple.replace(b"apple", words))
        os.utime(other, (2**33, 2**33))
    files.restore(apple)

    room.script({"text": "Two."})
    report = await room.turn("Which is it?", room.launch(resume=True))

    assert report.verdict.answer == "Two."
    asked = json.dumps(room.requests[-1]["body"]["messages"])
    assert [word in asked for word in ("apple", "banana", "cherry")] == [True, False, False]
    grown = files.read()
    assert grown is not None
    assert grown.startswith(apple)
    assert len(grown) > len(apple)


async def test_a_message_is_on_disk_before_the_model_is_asked(room: Room) -> None:
    room.script({"drop": "hang"})
    first = user_message("Hello.")
    async with room.process() as process:
        await process.send(first.id, first.text)
        await until(lambda: bool(room.requests))
        await process.stop(0)
        transcript = await process.transcript()

    assert transcript is not None
    assert holds_message(transcript, first.id)


def test_a_turn_works_under_uvloop(room: Room) -> None:
    room.script({"text": "Done."})
    prompt = "x" * 900_000
    lines = Lines()

    async def turn() -> None:
        report = await room.turn(prompt, lines=lines)
        assert report.verdict.answer == "Done.", lines.text[-2000:]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(turn())

    assert prompt in json.dumps(room.requests[0]["body"]["messages"])


def command_lines(room: Room) -> str:
    """Join the command lines of the room's processes."""
    found = []
    for pid in processes_of(room.marker):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode())
        except OSError:
            continue
    return "\n".join(found)
