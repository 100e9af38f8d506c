"""However a contained command ends, nothing of it is left, and its ending is known."""

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
from tests.integration.sandbox.contained import Room, Running, contained_room

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
"""Leaves a daemon, one that was forked twice, and three chains of forks, all without a marker."""

STARTED = 5
"""Lines that they print."""


@pytest.fixture(scope="module")
def room(account: Account) -> Iterator[Room]:
    with contained_room(account) as made:
        yield made


def left(name: str) -> list[int]:
    """Return the living processes that have a word in their command line."""
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
async def test_a_kill_leaves_nothing(room: Room, killed: str):
    name = uuid.uuid4().hex
    async with room.running(PYTHON, "-I", "-S", "-c", LEAVING, name) as running:
        for _ in range(STARTED):
            assert await running.line() == "started"
        os.kill(KILLS[killed](running), signal.SIGKILL)
        await all_gone(name)
        code = await running.ended()
    assert code == (-signal.SIGKILL if killed == "supervisor" else 128 + signal.SIGKILL)


async def test_the_death_of_the_worker_leaves_nothing(room: Room):
    name = uuid.uuid4().hex
    async with room.running(PYTHON, "-I", "-S", "-c", LEAVING, name) as running:
        for _ in range(STARTED):
            assert await running.line() == "started"
        running.control.close()
        await all_gone(name, seconds=4.0)


async def test_the_end_of_the_command_leaves_nothing(room: Room):
    name = uuid.uuid4().hex
    ended = await room.run(PYTHON, "-I", "-S", "-c", LEAVING.replace("time.sleep(60)\n", ""), name)
    assert ended.code == 0
    assert left(name) == []


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_exit_codes_pass_through(room: Room, code: int):
    assert (await room.run("/bin/sh", "-c", f"exit {code}")).code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
async def test_signals_become_exit_codes(room: Room, number: signal.Signals):
    assert (await room.run("/bin/sh", "-c", f"kill -{number} $$")).code == 128 + number


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
async def test_the_command_may_finish_when_it_is_asked_to_end(room: Room, is_stopped: bool):
    async with room.running(PYTHON, "-I", "-S", "-c", FINISHING) as running:
        assert await running.line() == "ready"
        if is_stopped:
            os.kill(running.command, signal.SIGSTOP)
        running.control.ask_to_stop(5.0)
        assert await running.line() == "finished"
        assert await running.ended() == 7


async def test_sigterm_to_the_supervisor_asks_the_command(room: Room):
    async with room.running(PYTHON, "-I", "-S", "-c", FINISHING) as running:
        assert await running.line() == "ready"
        running.process.terminate()
        assert await running.line() == "finished"
        assert await running.ended() == 7


async def test_a_command_that_ignores_sigterm_is_killed(room: Room):
    script = "trap '' TERM; echo ready; while true; do sleep 1; done"
    async with room.running("/bin/bash", "-c", script) as running:
        assert await running.line() == "ready"
        running.control.ask_to_stop(0.2)
        assert await running.ended() == 128 + signal.SIGKILL


async def test_a_command_that_cannot_be_started_says_so(room: Room):
    ended = await room.run("/no/such/program")
    assert ended.code == 1
    assert "No such file or directory" in ended.stderr
    assert not ended.control.has_no_sandbox


async def test_work_inside_counts(room: Room):
    script = "echo ready; while true; do :; done"
    async with room.running("/bin/bash", "-c", script) as running:
        assert await running.line() == "ready"
        before = cpu_seconds(running.process.pid)
        async with asyncio.timeout(20):
            while cpu_seconds(running.process.pid) - before < 0.2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_processes_inside_are_found_by_their_marker(room: Room):
    """Also by a worker of an unprivileged user, which looks as that user."""
    marker = Marker("data", "boot", uuid.uuid4().hex)
    script = "sleep 60 & setsid sleep 60 & echo ready; wait"
    environment = {MARKER_NAME: str(marker)}
    async with room.running("/bin/bash", "-c", script, environment=environment) as running:
        assert await running.line() == "ready"
        inside = {pid for pid, _ in descendants(running.init)}
        assert len(inside) == 3
        found = await asyncio.to_thread(as_user, room.account, lambda: kill_run(marker))
        assert found >= len(inside)
        await running.ended()


def as_user(account: Account, count: Callable[[], list[int]]) -> int:
    """Return how many processes are found in a process of this user."""
    child = os.fork()
    if child == 0:
        if not account.is_root:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        os._exit(min(255, len(count())))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
