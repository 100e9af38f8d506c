"""Lives of worker processes, told apart by locks that the kernel drops."""

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
LIFE = """
import subprocess, sys
from pathlib import Path
from host.process_lock import Boot
boot = Boot(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(boot.id, child.pid, flush=True)
sys.stdin.read()
boot.end()
"""


class Life:
    """Another process with a boot of its own, and a child that outlives it when it is killed."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LIFE, str(directory)],
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
def boot(tmp_path: Path) -> Iterator[WorkerProcess]:
    made = WorkerProcess(tmp_path / "boots")
    yield made
    made.end()


@pytest.fixture
def life(boot: WorkerProcess, tmp_path: Path) -> Iterator[Life]:
    started = Life(tmp_path / "boots")
    yield started
    started.kill()
    os.kill(started.child, signal.SIGKILL)


def test_a_process_is_alive_for_itself(boot: WorkerProcess) -> None:
    assert boot.is_alive(boot.id)
    assert boot.is_alive(boot.id)


def test_another_process_is_alive_until_it_is_killed(
    boot: WorkerProcess, life: Life, tmp_path: Path
) -> None:
    """Its child, who lives on, does not keep the lock."""
    assert boot.is_alive(life.boot_id)
    life.kill()
    assert Path(f"/proc/{life.child}").exists()
    assert not boot.is_alive(life.boot_id)
    assert not (tmp_path / "boots" / f"{life.boot_id}.lock").exists()
    assert not boot.is_alive(life.boot_id)


def test_another_process_is_alive_until_it_exits(
    boot: WorkerProcess, life: Life, tmp_path: Path
) -> None:
    life.end()
    assert not boot.is_alive(life.boot_id)
    assert [entry.stem for entry in (tmp_path / "boots").iterdir()] == [boot.id]


@pytest.mark.parametrize("name", ["", "unknown", "0123456789ab", "../../etc/passwd", "A" * 12])
def test_an_unknown_id_is_not_alive(boot: WorkerProcess, name: str) -> None:
    assert not boot.is_alive(name)


def test_locks_are_private(boot: WorkerProcess, tmp_path: Path) -> None:
    directory = tmp_path / "boots"
    assert directory.stat().st_mode & 0o077 == 0
    assert (directory / f"{boot.id}.lock").stat().st_mode & 0o077 == 0


def test_each_process_has_its_own_id(tmp_path: Path) -> None:
    boots = [WorkerProcess(tmp_path) for _ in range(5)]
    assert len({boot.id for boot in boots}) == 5
    assert all(one.is_alive(other.id) for one in boots for other in boots)
    for boot in boots:
        boot.end()
    assert list(tmp_path.iterdir()) == []
