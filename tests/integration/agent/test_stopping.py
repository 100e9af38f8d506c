from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import agent
from agent.claude.process import ClaudeProcess
from agent.message_queue import MessageQueue
from agent.process.marker import Marker
from agent.turn import run_turn
from tests.integration.agent.conftest import (
    Lines,
    ScriptedJob,
    is_running,
    processes_of,
    until,
    user_message,
)

PROJECT = Path(agent.__file__).parents[1]

STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.setsid()
if os.fork():
    time.sleep(300)
os.setsid()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(300)
"""

WORKER = """
import asyncio, json, pathlib, sys
from agent.claude.arguments import Launch
from agent.claude.process import ClaudeProcess
from domain.jobs import JobType

async def main(executable, session_id, environment, cwd):
    code, model = JobType.CODE, "claude-opus-5-5"
    launch = Launch(code, session_id, False, model, None, None, "", None, (), ())
    process = await ClaudeProcess.start(
        pathlib.Path(executable), launch, json.loads(environment), pathlib.Path(cwd)
    )
    await process.send("6f9619ff-8b86-4011-b42d-00c04fc964ff", "Go.")
    async for line in process.output():
        pass

asyncio.run(main(*sys.argv[1:]))
"""

HANGING = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("ready").touch()
time.sleep(300)
"""
FLOODING = """
import pathlib
for number in range(10_000):
    print("x" * 100_000)
    if number == 10:
        pathlib.Path("ready").touch()
"""


def run_stubborn_command(job: ScriptedJob, prefix: str = "env -i") -> Path:
    """Script a command with an orphan that ignores signals, in its own session, without a marker.

    Its process id will be in the file that is returned.
    """
    script, pid = job.base / "stubborn.py", job.base / "pid"
    script.write_text(STUBBORN)
    command = f"{prefix} {sys.executable} {script} {pid}"
    job.script({"tools": [["Bash", {"command": command}]]}, {"text": "Done."})
    return pid


@contextlib.asynccontextmanager
async def reading(process: ClaudeProcess) -> AsyncIterator[None]:
    async def read() -> None:
        async for _ in process.output():
            pass

    asyncio_task = asyncio.create_task(read())
    yield
    async with asyncio.timeout(5):
        await asyncio_task


async def test_stop_kills_children_that_ignore_signals(job: ScriptedJob) -> None:
    pid_file = run_stubborn_command(job)
    async with job.process() as process, reading(process):
        await process.send("6f9619ff-8b86-4011-b42d-00c04fc964ff", "Go.")
        await until(pid_file.exists)
        began = time.monotonic()
        await process.stop()
        seconds = time.monotonic() - began

        assert processes_of(job.marker) == []
        assert not is_running(int(pid_file.read_text()))
        assert seconds < 4
        assert await process.wait() == 128 + signal.SIGTERM
        await process.stop()


async def test_the_run_ends_if_the_worker_dies(job: ScriptedJob) -> None:
    pid_file = run_stubborn_command(job)
    arguments = [str(job.executable), job.session_id, json.dumps(job.environment), str(job.cwd)]
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, *arguments, cwd=PROJECT
    )
    await until(pid_file.exists)
    assert len(processes_of(job.marker)) >= 3
    worker.kill()
    await worker.wait()

    await until(lambda: processes_of(job.marker) == [], seconds=5)
    assert not is_running(int(pid_file.read_text()))


async def test_commands_end_if_claude_dies(job: ScriptedJob) -> None:
    pid_file = run_stubborn_command(job)
    first = user_message("Go.")
    async with job.process() as process:
        running = asyncio.create_task(
            run_turn(process, [first], keep_open=False, on_line=Lines(), queue=MessageQueue())
        )
        await until(pid_file.exists)
        os.kill(claude_pid(job, process), signal.SIGKILL)
        async with asyncio.timeout(5):
            report = await running

    assert report.exit_code == 128 + signal.SIGKILL
    assert report.consumed == [first.id]
    assert processes_of(job.marker) == []
    assert not is_running(int(pid_file.read_text()))


async def test_the_run_ends_if_the_supervisor_dies(job: ScriptedJob) -> None:
    pid_file = run_stubborn_command(job, prefix="")
    async with job.process() as process, reading(process):
        await process.send("6f9619ff-8b86-4011-b42d-00c04fc964ff", "Go.")
        await until(pid_file.exists)
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            assert await process.wait() == -signal.SIGKILL

    assert processes_of(job.marker) == []
    assert not is_running(int(pid_file.read_text()))


async def test_processes_that_outlive_the_supervisor_are_found_by_marker(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(HANGING)
    async with job.process() as process:
        await until((job.cwd / "ready").exists)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()

        assert processes_of(job.marker) == []


async def test_the_cli_starts_with_default_signal_handling(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job("")
    job.executable.write_text("#!/bin/sh\nexec grep -E 'SigIgn|SigBlk' /proc/self/status\n")
    async with job.process() as process:
        lines = [line.text.split() async for line in process.output()]

    # libc uses signals 32 and 33: its posix_spawn, which make calls, ignores them.
    libc_own = 0b11 << 31
    masks = {name: int(mask, 16) & ~libc_own for name, mask in lines}
    assert masks == {"SigBlk:": 0, "SigIgn:": 0}


async def test_sigterm_to_the_supervisor_stops_the_run(job: ScriptedJob) -> None:
    pid_file = run_stubborn_command(job)
    async with job.process() as process, reading(process):
        await process.send("6f9619ff-8b86-4011-b42d-00c04fc964ff", "Go.")
        await until(pid_file.exists)
        os.kill(process.pid, signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == 128 + signal.SIGTERM

    assert processes_of(job.marker) == []
    assert not is_running(int(pid_file.read_text()))


async def test_a_command_left_in_the_background_ends_with_the_turn(job: ScriptedJob) -> None:
    pid = job.base / "pid"
    command = f"nohup setsid sleep 300 > /dev/null 2>&1 & echo $! > {pid}"
    job.script({"tools": [["Bash", {"command": command}]]}, {"text": "Done."})

    report = await job.turn("Go.")

    assert report.result.answer == "Done."
    assert not is_running(int(pid.read_text()))


@pytest.mark.parametrize("body", [HANGING, FLOODING], ids=["hanging", "flooding"])
async def test_stop_needs_neither_cooperation_nor_a_reader(
    fake_job: Callable[[str], ScriptedJob], body: str
) -> None:
    job = fake_job(body)
    async with job.process() as process:
        await until((job.cwd / "ready").exists)
        began = time.monotonic()
        await process.stop(0.2)

    assert time.monotonic() - began < 2
    assert processes_of(job.marker) == []


async def test_concurrent_stops_use_the_shorter_grace(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(HANGING)
    async with job.process() as process:
        await until((job.cwd / "ready").exists)
        began = time.monotonic()
        await asyncio.gather(process.stop(30), process.stop(0.2))

    assert time.monotonic() - began < 5


async def test_leaving_the_block_on_cancellation_ends_the_run(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job("import time\nprint(1)\ntime.sleep(300)\n")
    started = asyncio.Event()

    async def work() -> None:
        async with job.process() as process:
            await anext(process.output())
            started.set()
            await process.wait()

    asyncio_task = asyncio.create_task(work())
    await started.wait()
    asyncio_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio_task

    assert processes_of(job.marker) == []


async def test_stop_ends_a_suspended_process(fake_job: Callable[[str], ScriptedJob]) -> None:
    job = fake_job("import time\nprint(1)\ntime.sleep(300)\n")
    async with job.process() as process:
        await anext(process.output())
        os.kill(claude_pid(job, process), signal.SIGSTOP)
        await process.stop(1)

    assert await process.wait() == 128 + signal.SIGTERM


async def test_a_process_starts_although_thousands_of_files_are_open(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job("print(1)\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    open_files = [os.dup(2) for _ in range(1100)]
    try:
        async with job.process() as process:
            assert [line.text async for line in process.output()] == ["1"]
            assert await process.wait() == 0
    finally:
        for number in open_files:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_executable_that_cannot_start_reports_why(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job("")
    job.executable.write_text("#!/no/such/interpreter\n")
    lines = Lines()

    report = await job.turn("Go.", lines=lines)

    assert report.exit_code == 127
    assert report.consumed == []
    assert report.result.failure is not None
    assert "cannot be started" in report.result.failure.message


async def test_a_missing_directory_raises_an_error(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job("")
    with pytest.raises(FileNotFoundError):
        await ClaudeProcess.start(
            job.executable, job.launch(), job.environment, job.base / "missing"
        )


def claude_pid(job: ScriptedJob, process: ClaudeProcess) -> int:
    """Return the process id of the supervisor's child."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def test_invalid_markers_are_not_parsed() -> None:
    marker = Marker("data", "boot", "job")
    assert Marker.parse(str(marker)) == marker
    assert Marker.parse("data/boot") is None
    with pytest.raises(ValueError, match="slash"):
        Marker("a/b", "boot", "job")
