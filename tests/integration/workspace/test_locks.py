from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import is_kept_waiting, until
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


async def take(locks: Locks, file: Path) -> None:
    async with asyncio.timeout(20), locks.hold(file):
        pass


async def is_excluded(locks: Locks, file: Path, failed_attempts: list[int]) -> bool:
    taking = asyncio.create_task(take(locks, file))
    excluded = await is_kept_waiting(taking, failed_attempts)
    taking.cancel()
    with suppress(asyncio.CancelledError):
        await taking
    return excluded


async def test_one_holder_at_a_time(file: Path) -> None:
    locks, inside, maximum = Locks(), 0, 0

    async def work() -> None:
        nonlocal inside, maximum
        async with locks.hold(file):
            inside += 1
            maximum = max(maximum, inside)
            await asyncio.sleep(0.002)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert maximum == 1


async def test_two_locks_are_independent(file: Path) -> None:
    locks = Locks()
    async with locks.hold(file):
        await take(locks, file.with_name("other.lock"))


async def test_lock_excludes_another_process(
    file: Path, other_process: Holder, failed_attempts: list[int]
) -> None:
    locks = Locks()
    assert await is_excluded(locks, file, failed_attempts)
    other_process.kill()
    await take(locks, file)


def open_files() -> set[Path]:
    """Return the files that any thread of this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(Path(f"/proc/self/fd/{name}").readlink())
    return found


async def test_lock_file_is_open_only_while_held(file: Path) -> None:
    async with Locks().hold(file):
        assert file in open_files()
    assert file not in open_files()


async def test_cancelled_wait_leaves_nothing_locked(
    file: Path, other_process: Holder, failed_attempts: list[int]
) -> None:
    locks = Locks()
    for _ in range(2):
        assert await is_excluded(locks, file, failed_attempts)
    assert file not in open_files()
    other_process.kill()
    await take(locks, file)


async def test_waiting_does_not_block_the_event_loop(
    file: Path, other_process: Holder, failed_attempts: list[int]
) -> None:
    waiting = asyncio.create_task(take(Locks(), file))
    await until(lambda: waiting.done() or len(failed_attempts) > 0)
    for _ in range(50):
        await asyncio.sleep(0.001)
    # If waiting blocked the loop, the other process would be gone now.
    assert not waiting.done()
    other_process.kill()
    await waiting


async def test_command_keeps_the_lock_if_its_parent_is_killed(
    file: Path, tmp_path: Path, failed_attempts: list[int]
) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    command = f"touch {started}; until test -e {go_on}; do sleep 0.02; done"
    holder = Holder(file, tmp_path, command)
    await until(started.exists)
    holder.kill()
    locks = Locks()
    assert await is_excluded(locks, file, failed_attempts)
    go_on.touch()
    await take(locks, file)


async def test_descriptors_are_listed_only_while_held(file: Path) -> None:
    locks = Locks()
    assert held_descriptors() == ()
    async with locks.hold(file), locks.hold(file.with_name("second.lock")):
        assert len(held_descriptors()) == 2
    assert held_descriptors() == ()


async def test_forgotten_lock_still_excludes_waiting_tasks(file: Path) -> None:
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


async def test_lock_file_deleted_before_locking_is_opened_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, failed_attempts: list[int]
) -> None:
    lock = locks_module._locks
    forgotten: list[Path] = []

    def lock_after_deletion(descriptor: int) -> bool:
        if not forgotten:
            file.unlink()
            forgotten.append(file)
        return lock(descriptor)

    monkeypatch.setattr(locks_module, "_locks", lock_after_deletion)
    async with Locks().hold(file):
        assert forgotten
        assert await is_excluded(Locks(), file, failed_attempts)


async def test_git_inherits_the_lock(file: Path, tmp_path: Path) -> None:
    git, locks = Git(os.environ["PATH"]), Locks()
    async with locks.hold(file):
        [descriptor] = held_descriptors()
        printed = await git.run("-c", "alias.x=!ls -l /proc/self/fd", "x", at=GitLocation(tmp_path))
    assert str(file) in printed
    assert f" {descriptor} -> " in printed
