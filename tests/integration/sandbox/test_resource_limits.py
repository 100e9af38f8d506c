"""Jobs that really exceed each resource limit."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandbox.containment import Reach
from sandbox.supervision import namespaces
from sandbox.supervision.limits import Limits
from tests.integration.sandbox.accounts import PYTHON, Account
from tests.integration.sandbox.contained import ContainedJob, contained_room

MIB = 1 << 20
FORKING = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
THREADS = """
import threading, time
for _ in range(400):
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError: break
time.sleep(60)
"""
ONE = "import time; kept = b'x' * (200 << 20); time.sleep(60)"
MANY = """
import os, time
for _ in range(8):
    if os.fork() == 0: break
kept = os.urandom(1 << 20) * 30
time.sleep(60)
"""
MAPPED = """
import mmap, time
kept = mmap.mmap(-1, 200 << 20)
for at in range(0, len(kept), 4096): kept[at] = 1
time.sleep(60)
"""
FILE = """
import sys, time
with open(sys.argv[1], "wb") as file: file.write(bytes(200 << 20))
time.sleep(60)
"""
SMALL_FILES = """
import os, sys, time
for number in range(40_000): os.close(os.open(f"{sys.argv[1]}{number}", os.O_CREAT))
time.sleep(60)
"""
COUNTING = """
import os, time
print("ready", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
started = 0
try:
    while started < 2000:
        if os.fork() == 0: time.sleep(60)
        started += 1
finally:
    print(started, flush=True)
    time.sleep(60)
"""
SHARING = """
import os, time
kept = os.urandom(1 << 20) * 60
children = [os.fork() for _ in range(8)]
if 0 not in children:
    time.sleep(1.6)
    print("kept", flush=True)
else:
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def job(account: Account) -> Iterator[ContainedJob]:
    with contained_room(account) as made:
        yield made


@pytest.mark.parametrize("program", [FORKING, THREADS], ids=["processes", "threads"])
async def test_too_many_processes(job: ContainedJob, program: str):
    ended = await job.python(program, limits=Limits(processes=64))
    assert ended.limit is not None
    assert ended.limit.startswith("It had ")
    assert ended.limit.endswith(" processes and threads, and SANDBOX_PROCESSES is 64.")


async def test_the_kernel_limits_processes_too(job: ContainedJob):
    """For root only if each namespace has its own process ids."""
    if job.account.is_root and namespaces.kernel() < (6, 14):
        pytest.skip("the kernel binds no process of root")
    command = (PYTHON, "-I", "-S", "-c", COUNTING)
    async with job.running(*command, limits=Limits(processes=400)) as running:
        assert await running.line() == "ready"
        os.kill(running.process.pid, signal.SIGSTOP)
        (job.work / "go").touch()
        assert 400 <= int(await running.line()) <= 700
        os.kill(running.process.pid, signal.SIGCONT)
        await running.ended()
        assert running.control.limit is not None
    (job.work / "go").unlink()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (ONE, []),
        (MANY, []),
        (MAPPED, []),
        (FILE, ["/dev/shm/file"]),
        (FILE, ["/tmp/file"]),
    ],
    ids=["one process", "many processes", "shared memory", "/dev/shm", "/tmp"],
)
async def test_too_much_memory(job: ContainedJob, program: str, arguments: list[str]):
    ended = await job.python(program, *arguments, limits=Limits(memory_bytes=150 * MIB))
    assert ended.limit is not None, ended
    assert ended.limit.endswith(" GiB of memory, and SANDBOX_MEMORY_GB is 0.1.")
    assert ended.code == 128 + 9


async def test_too_much_memory_after_sigterm(job: ContainedJob):
    code = f"import signal, time; signal.signal(15, lambda *_: exec({ONE!r}))"
    command = (PYTHON, "-I", "-S", "-c", f"{code}; print('ready', flush=True); time.sleep(60)")
    async with job.running(*command, limits=Limits(memory_bytes=150 * MIB)) as running:
        assert await running.line() == "ready"
        running.control.ask_to_stop(60.0)
        await running.ended()
        assert running.control.limit is not None


async def test_too_many_empty_files_in_memory(job: ContainedJob):
    ended = await job.python(SMALL_FILES, "/tmp/", limits=Limits(memory_bytes=40 * MIB))
    assert ended.limit is not None, ended
    assert "SANDBOX_MEMORY_GB" in ended.limit


async def test_shared_memory_counts_once(job: ContainedJob):
    ended = await job.python(SHARING, limits=Limits(memory_bytes=150 * MIB))
    assert (ended.stdout, ended.limit) == ("kept\n", None)


async def test_no_writable_place_is_without_a_limit(job: ContainedJob):
    places = "/ /dev /dev/pts /proc /etc /usr /opt"
    tried = await job.shell(
        f"for place in {places}; do touch $place/new 2> /dev/null && echo $place; done; true"
    )
    assert tried == ""


async def test_a_file_that_is_too_large(job: ContainedJob):
    """The program gets an error and continues."""
    script = "head -c 4M /dev/zero > large || echo refused; stat -c %s large"
    ended = await job.run("/bin/sh", "-c", script, limits=Limits(file_bytes=MIB))
    assert ended.stdout.split() == ["refused", str(MIB)]
    assert ended.limit is None


@pytest.fixture
def disk(account: Account, tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB on which writes are counted, unlike on a tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted: {mounted.stderr}")
    with ExitStack() as mounts:
        mounts.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        for name in ("writing", "idle"):
            (place / name).mkdir()
            account.own(place / name)
        yield place


async def test_a_disk_that_becomes_full(job: ContainedJob, disk: Path):
    """Only the job that fills the disk is stopped."""
    limits = Limits(free_bytes=40 * MIB)
    for parent in disk.parents:
        parent.chmod(parent.stat().st_mode | 0o755)
    idle = Reach((disk / "idle",))
    async with job.running("/bin/sleep", "60", limits=limits, reach=idle) as neighbour:
        script = f"cd {disk}/writing; for n in $(seq 50); do head -c 1M /dev/zero > $n; sync; done"
        command = ("/bin/sh", "-c", f"{script}; sleep 60")
        reach = Reach((disk / "writing",))
        ended = await job.run(*command, limits=limits, reach=reach)
        assert ended.limit is not None, ended
        assert ended.limit.endswith("SANDBOX_MIN_FREE_GB is 0.")
        assert neighbour.process.poll() is None
        assert neighbour.control.limit is None
