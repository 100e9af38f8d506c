from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import until
from workspace.git import locks as locks_module
from workspace.git.locks import Locks, held_descriptors
from workspace.git.runner import Git, GitLocation

HOLDER = """
import asyncio, sys
from pathlib import Path
from workspace.git.runner import Git, GitLocation
from workspace.git import locks as locks_module
from workspace.git.locks import Locks

async def main(file, place, command):
    async with Locks().hold(file):
        print("held", flush=True)
        if command:
            await Git("/usr/bin:/bin").run("-c", "alias.x=!" + command, "x", at=GitLocation(place))
        else:
            await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "below" / "name.lock"


class Holder:
    """Another process that holds a lock, and may run a command under it."""

    def __init__(self, file: Path, place: Path, command: str = "") -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-c", HOLDER, file, place, command),
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def other_process(file: Path, tmp_path: Path) -> Iterator[Holder]:
    holder = Holder(file, tmp_path)
    yield holder
    holder.kill()


async def free(locks: Locks, file: Path, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            async with locks.hold(file):
                return True
    except TimeoutError:
        return False


async def test_one_holder_at_a_time(file: Path) -> None:
    locks, inside, most = Locks(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with locks.hold(file):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.002)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 1


async def test_two_files_do_not_exclude_each_other(file: Path) -> None:
    locks = Locks()
    async with locks.hold(file):
        assert await free(locks, file.with_name("other.lock"), 5)


async def test_another_process_is_excluded(file: Path, other_process: Holder) -> None:
    locks = Locks()
    assert not await free(locks, file, 0.3)
    other_process.kill()
    assert await free(locks, file, 10)


def open_files() -> set[Path]:
    """What this process has open, whichever thread opened it."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(Path(f"/proc/self/fd/{name}").readlink())
    return found


async def test_the_files_of_held_locks_are_open(file: Path) -> None:
    async with Locks().hold(file):
        assert file in open_files()
    assert file not in open_files()


async def test_a_cancelled_wait_leaves_nothing_locked(file: Path, other_process: Holder) -> None:
    locks = Locks()
    assert not await free(locks, file, 0.1)
    assert not await free(locks, file, 0.1)
    assert file not in open_files()
    other_process.kill()
    assert await free(locks, file, 10)


async def test_waiting_does_not_block_the_event_loop(file: Path, other_process: Holder) -> None:
    waiting = asyncio.create_task(free(Locks(), file, 0.5))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 50


async def test_a_command_keeps_the_lock_when_its_starter_is_killed(
    file: Path, tmp_path: Path
) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    command = f"touch {started}; until test -e {go_on}; do sleep 0.02; done"
    holder = Holder(file, tmp_path, command)
    await until(started.exists)
    holder.kill()
    locks = Locks()
    assert not await free(locks, file, 0.3)
    go_on.touch()
    assert await free(locks, file, 10)


async def test_descriptors_are_known_only_while_held(file: Path) -> None:
    locks = Locks()
    assert held_descriptors() == ()
    async with locks.hold(file), locks.hold(file.with_name("second.lock")):
        assert len(held_descriptors()) == 2
    assert held_descriptors() == ()


async def test_a_forgotten_lock_still_excludes_those_who_wait(file: Path) -> None:
    locks, order = Locks(), []

    async def wait(name: str) -> None:
        async with locks.hold(file):
            order.append(name)
            assert list(file.parent.iterdir()) == [file]

    async with locks.hold(file):
        waiting = [asyncio.create_task(wait(name)) for name in "ab"]
        await asyncio.sleep(0)
        locks.forget(file)
        assert not list(file.parent.iterdir())
        order.append("first")
    await asyncio.gather(*waiting)
    assert sorted(order) == ["a", "b", "first"]
    assert order[0] == "first"


async def test_a_lock_forgotten_between_opening_and_locking_does_not_count(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_locks = locks_module._locks
    forgotten: list[Path] = []

    def locks_after_somebody_forgot(descriptor: int) -> bool:
        if not forgotten:
            file.unlink()
            forgotten.append(file)
        return really_locks(descriptor)

    monkeypatch.setattr(locks_module, "_locks", locks_after_somebody_forgot)
    async with Locks().hold(file):
        assert forgotten
        assert not await free(Locks(), file, 0.2)


async def test_git_runs_under_the_lock(file: Path, tmp_path: Path) -> None:
    git, locks = Git(os.environ["PATH"]), Locks()
    async with locks.hold(file):
        [descriptor] = held_descriptors()
        printed = await git.run("-c", "alias.x=!ls -l /proc/self/fd", "x", at=GitLocation(tmp_path))
    assert str(file) in printed
    assert f" {descriptor} -> " in printed
