"""After any end of a contained command, no process is left and its exit code is known."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.process.idle_detector import cpu_seconds
from agent.process.marker import MARKER_NAME, Marker
from agent.process.orphans import kill_run
from sandbox.supervision.supervisor import descendants
from tests.integration.sandbox.accounts import PYTHON, Account
from tests.integration.sandbox.contained import ContainedJob, Running, contained_room

LEAVING = """
import os, signal, subprocess, sys, time
name = sys.argv[1]
code = '''
import os, signal, sys, time
kind = sys.argv[2]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
if kind == "double":
    if os.fork(): os._exit(0)
if kind == "chains":
    for _ in range(2):
        if os.fork() == 0: break
print("started", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    if kind == "chains" and os.fork(): os._exit(0)
    time.sleep(0.005)
'''
for kind in ("daemon", "double", "chains"):
    subprocess.Popen([sys.executable, "-I", "-S", "-c", code, name, kind], env={}, cwd="/")
time.sleep(60)
"""
"""Leaves a daemon, a double-forked daemon, and three chains of forks, all without a marker."""

STARTED = 5
"""Number of lines that they print."""


@pytest.fixture(scope="module")
def job(account: Account) -> Iterator[ContainedJob]:
    with contained_room(account) as made:
        yield made


def left(name: str) -> list[int]:
    """Return the running processes with a word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and name.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def all_gone(name: str, seconds: float = 1.0) -> None:
    deadline = time.monotonic() + seconds
    while found := left(name):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.01)


KILLS: dict[str, Callable[[Running], int]] = {
    "supervisor": lambda running: running.process.pid,
    "bwrap": lambda running: running.bwrap,
    "first process of the sandbox": lambda running: running.init,
    "command": lambda running: running.command,
}


@pytest.mark.parametrize("killed", KILLS)
async def test_a_kill_leaves_no_process(job: ContainedJob, killed: str):
    name = uuid.uuid4().hex
    async with job.running(PYTHON, "-I", "-S", "-c", LEAVING, name) as running:
        for _ in range(STARTED):
            assert await running.line() == "started"
        os.kill(KILLS[killed](running), signal.SIGKILL)
        await all_gone(name)
        code = await running.ended()
    assert code == (-signal.SIGKILL if killed == "supervisor" else 128 + signal.SIGKILL)


async def test_the_death_of_the_worker_leaves_no_process(job: ContainedJob):
    name = uuid.uuid4().hex
    async with job.running(PYTHON, "-I", "-S", "-c", LEAVING, name) as running:
        for _ in range(STARTED):
            assert await running.line() == "started"
        running.control.close()
        await all_gone(name, seconds=4.0)


async def test_the_end_of_the_command_leaves_no_process(job: ContainedJob):
    name = uuid.uuid4().hex
    ended = await job.run(PYTHON, "-I", "-S", "-c", LEAVING.replace("time.sleep(60)\n", ""), name)
    assert ended.code == 0
    assert left(name) == []


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_exit_codes_pass_through(job: ContainedJob, code: int):
    assert (await job.run("/bin/sh", "-c", f"exit {code}")).code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
async def test_signals_become_exit_codes(job: ContainedJob, number: signal.Signals):
    assert (await job.run("/bin/sh", "-c", f"kill -{number} $$")).code == 128 + number


FINISHING = """
import os, signal, sys, time
def finish(*_):
    time.sleep(0.3)
    os.write(1, b"finished" + bytes([10]))
    sys.exit(7)
signal.signal(signal.SIGTERM, finish)
print("ready", flush=True)
while True: time.sleep(60)
"""


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
async def test_the_command_may_finish_after_sigterm(job: ContainedJob, is_stopped: bool):
    async with job.running(PYTHON, "-I", "-S", "-c", FINISHING) as running:
        assert await running.line() == "ready"
        if is_stopped:
            os.kill(running.command, signal.SIGSTOP)
        running.control.ask_to_stop(5.0)
        assert await running.line() == "finished"
        assert await running.ended() == 7


async def test_sigterm_to_the_supervisor_reaches_the_command(job: ContainedJob):
    async with job.running(PYTHON, "-I", "-S", "-c", FINISHING) as running:
        assert await running.line() == "ready"
        running.process.terminate()
        assert await running.line() == "finished"
        assert await running.ended() == 7


async def test_a_command_that_ignores_sigterm_is_killed(job: ContainedJob):
    script = "trap '' TERM; echo ready; while true; do sleep 1; done"
    async with job.running("/bin/bash", "-c", script) as running:
        assert await running.line() == "ready"
        running.control.ask_to_stop(0.2)
        assert await running.ended() == 128 + signal.SIGKILL


async def test_a_command_that_cannot_be_started_is_named(job: ContainedJob):
    ended = await job.run("/no/such/program")
    assert ended.code == 1
    assert "No such file or directory" in ended.stderr
    assert not ended.control.has_no_sandbox


async def test_work_inside_counts_as_activity(job: ContainedJob):
    script = "echo ready; while true; do :; done"
    async with job.running("/bin/bash", "-c", script) as running:
        assert await running.line() == "ready"
        before = cpu_seconds(running.process.pid)
        async with asyncio.timeout(20):
            while cpu_seconds(running.process.pid) - before < 0.2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_processes_inside_are_found_by_their_marker(job: ContainedJob):
    """A worker of an unprivileged user must find them too."""
    marker = Marker("data", "boot", uuid.uuid4().hex)
    script = "sleep 60 & setsid sleep 60 & echo ready; wait"
    environment = {MARKER_NAME: str(marker)}
    async with job.running("/bin/bash", "-c", script, environment=environment) as running:
        assert await running.line() == "ready"
        inside = {pid for pid, _ in descendants(running.init)}
        assert len(inside) == 3
        found = await asyncio.to_thread(as_user, job.account, lambda: kill_run(marker))
        assert found >= len(inside)
        await running.ended()


def as_user(account: Account, count: Callable[[], list[int]]) -> int:
    """Return the number of found processes, searching as this user."""
    child = os.fork()
    if child == 0:
        if not account.is_root:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        os._exit(min(255, len(count())))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
