"""Locks of worker processes, which the kernel releases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.process_lock import WorkerProcess

ROOT = Path(__file__).parents[3]
OTHER_WORKER = """
import subprocess, sys
from pathlib import Path
from host.process_lock import WorkerProcess
worker = WorkerProcess(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(worker.id, child.pid, flush=True)
sys.stdin.read()
worker.end()
"""


class OtherWorker:
    """Another worker process, with a child that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER_WORKER, str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.boot_id, child = self.process.stdout.readline().split()
        self.child = int(child)

    def end(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    made = WorkerProcess(tmp_path / "boots")
    yield made
    made.end()


@pytest.fixture
def other(worker: WorkerProcess, tmp_path: Path) -> Iterator[OtherWorker]:
    started = OtherWorker(tmp_path / "boots")
    yield started
    started.kill()
    os.kill(started.child, signal.SIGKILL)


def test_a_process_is_alive_for_itself(worker: WorkerProcess) -> None:
    assert worker.is_alive(worker.id)
    assert worker.is_alive(worker.id)


def test_another_process_is_alive_until_it_is_killed(
    worker: WorkerProcess, other: OtherWorker, tmp_path: Path
) -> None:
    """Its child is still running and does not hold the lock."""
    assert worker.is_alive(other.boot_id)
    other.kill()
    assert Path(f"/proc/{other.child}").exists()
    assert not worker.is_alive(other.boot_id)
    assert not (tmp_path / "boots" / f"{other.boot_id}.lock").exists()
    assert not worker.is_alive(other.boot_id)


def test_another_process_is_alive_until_it_exits(
    worker: WorkerProcess, other: OtherWorker, tmp_path: Path
) -> None:
    other.end()
    assert not worker.is_alive(other.boot_id)
    assert [entry.stem for entry in (tmp_path / "boots").iterdir()] == [worker.id]


@pytest.mark.parametrize("name", ["", "unknown", "0123456789ab", "../../etc/passwd", "A" * 12])
def test_an_unknown_id_is_not_alive(worker: WorkerProcess, name: str) -> None:
    assert not worker.is_alive(name)


def test_locks_are_private(worker: WorkerProcess, tmp_path: Path) -> None:
    directory = tmp_path / "boots"
    assert directory.stat().st_mode & 0o077 == 0
    assert (directory / f"{worker.id}.lock").stat().st_mode & 0o077 == 0


def test_each_process_has_its_own_id(tmp_path: Path) -> None:
    workers = [WorkerProcess(tmp_path) for _ in range(5)]
    assert len({worker.id for worker in workers}) == 5
    assert all(one.is_alive(other.id) for one in workers for other in workers)
    for worker in workers:
        worker.end()
    assert list(tmp_path.iterdir()) == []
