"""Faults of what is below the installation: its disk, its store, its hosts and their clocks."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import phases
from tests.faults.fault import Fault, Strike
from tests.faults.faults_of_all import sweep, terminate_worker, worker_pid
from tests.faults.installation import Installation
from tests.faults.situations import Situation
from tests.faults.trial import GONE_WITHIN
from tests.faults.wire import Wire
from tests.small_disk import SmallDisk, can_mount, small_disk
from tests.stack import ROOT, eventually
from workflows.policies import HEARTBEAT_TIMEOUT

DISK_NAME = "disk"
STORE_OUTAGE = 60.0
TAKEN_OVER_WITHIN = 60.0
"""Not the usual 15 s: all jobs begin again on the other host at once, each with a clone and a
Claude of its own, on the processors of one machine. What is left to clean up on the lost host is
asked of it for 40 s first."""

OTHER_HOST = "other-host"
WIRED_HOST = "wired-host"

# The worker of another host; its clock is off by some seconds.
_WORKER = """
import datetime, sys
import domain.timestamps
off = datetime.timedelta(seconds=float(sys.argv.pop(1)))
domain.timestamps.utc_now = lambda: datetime.datetime.now(datetime.UTC) + off
import cli
sys.exit(cli.main(["worker", "--embedded"]))
"""


@contextlib.contextmanager
def _on_small_disk(root: Path) -> Iterator[dict[str, str]]:
    """Keep repositories and worktrees on a disk of their own."""
    disk = root / DISK_NAME
    with small_disk(disk):
        yield {"REPOS_DIR": str(disk / "repos"), "WORKTREES_DIR": str(disk / "worktrees")}


def fill_disk(place: Installation, situations: Sequence[Situation]) -> None:
    SmallDisk(place.stack.root / DISK_NAME).fill()


def free_disk(place: Installation) -> None:
    SmallDisk(place.stack.root / DISK_NAME).free()
    terminate_worker(place, [])


def lock_store(place: Installation, situations: Sequence[Situation]) -> None:
    """Let nobody write for a minute."""
    with contextlib.closing(sqlite3.connect(place.stack.root / "data" / "orchestrator.db")) as it:
        it.execute("BEGIN EXCLUSIVE")
        time.sleep(STORE_OUTAGE)
        it.rollback()


def lose_host(clock_off: float) -> Strike:
    """Let another host begin, and this one's worker die for good."""

    def strike(place: Installation, situations: Sequence[Situation]) -> None:
        stack = place.stack
        assert stack.process is not None
        lost = worker_pid(stack)
        _start_host(place, len(situations), clock_off=clock_off)
        os.kill(stack.process.pid, signal.SIGSTOP)  # or it would start the worker again
        os.kill(lost, signal.SIGKILL)

    return strike


def freeze_host(place: Installation, situations: Sequence[Situation]) -> None:
    """Let another host begin and take over, while this one's worker is frozen and knows nothing."""
    frozen = worker_pid(place.stack)
    _start_host(place, len(situations))
    os.kill(frozen, signal.SIGSTOP)
    threading.Timer(25, os.kill, (frozen, signal.SIGCONT)).start()


def find_host(place: Installation) -> None:
    """Let the lost host come back, which sweeps what it has left."""
    assert place.stack.process is not None
    os.kill(place.stack.process.pid, signal.SIGCONT)


def hand_over(place: Installation, situations: Sequence[Situation]) -> None:
    """Start a second worker of this host beside the first, and let that one end in order."""
    stack = place.stack
    assert stack.process is not None
    first = worker_pid(stack)
    _start_worker(place, len(situations))
    os.kill(stack.process.pid, signal.SIGSTOP)  # or it would start the first one again
    os.kill(first, signal.SIGTERM)


def use_wired_host(place: Installation) -> None:
    """Let jobs run on a host that reaches Temporal through a wire, and on no other."""
    stack = place.stack
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGSTOP)
    os.kill(worker_pid(stack), signal.SIGKILL)
    host, _, port = stack.temporal_address.partition(":")
    place.wires.append(Wire(host, int(port)))
    slots = int(place.environment["MAX_CONCURRENT_JOBS"])
    _start_host(place, slots, name=WIRED_HOST, TEMPORAL_ADDRESS=place.wires[0].address)


def cut_host(place: Installation, situations: Sequence[Situation]) -> None:
    """Cut the wire for longer than the heartbeat timeout, and let another host take over.

    What ran on the host that was cut off must be gone before that.
    """
    _start_host(place, len(situations))
    place.wires[0].cut()
    threading.Timer(25, place.wires[0].mend).start()
    time.sleep(HEARTBEAT_TIMEOUT.total_seconds() - GONE_WITHIN)


def restart_wired_host(place: Installation) -> None:
    """Let the host that was cut off sweep what it has left."""
    place.helpers[0].terminate()
    place.helpers[0].wait(30)
    _start_host(place, 1, name=WIRED_HOST)
    find_host(place)


def _start_host(
    place: Installation,
    slots: int,
    *,
    name: str = OTHER_HOST,
    clock_off: float = 0,
    **environment: str,
) -> None:
    """Start another host's worker, which shares nothing with the first but the store."""
    data = place.stack.root / name
    data.mkdir(exist_ok=True)
    if not (data / "orchestrator.db").is_symlink():
        (data / "orchestrator.db").symlink_to(place.stack.root / "data" / "orchestrator.db")
    _start_worker(
        place,
        slots,
        clock_off,
        DATA_DIR=str(data),
        REPOS_DIR=str(data / "repos"),
        WORKTREES_DIR=str(data / "worktrees"),
        HOST_ID=name,
        **environment,
    )


def _start_worker(
    place: Installation, slots: int, clock_off: float = 0, **environment: str
) -> None:
    """Start a worker that `orchestrator up` does not know of."""
    stack = place.stack
    variables = {
        **stack.environment,
        **place.environment,
        "TEMPORAL_ADDRESS": stack.temporal_address,
        "MAX_CONCURRENT_JOBS": str(slots),
        **environment,
    }
    boots = Path(variables["DATA_DIR"]) / "boots"
    before = _boots(boots)
    with stack.log.open("ab") as log:
        helper = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(clock_off), "worker --embedded"],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    place.helpers.append(helper)
    eventually(lambda: _boots(boots) - before, 30, "the worker is about to poll")


def _boots(directory: Path) -> set[str]:
    return {file.name for file in directory.glob("*.lock")}


def _loss(name: str, clock_off: float) -> Fault:
    return Fault(
        name,
        lose_host(clock_off),
        forgets=True,
        relieve=find_host,
        recovers_within=TAKEN_OVER_WITHIN,
    )


DISK: tuple[Fault, ...] = (
    Fault(
        "disk full",
        fill_disk,
        (phases.Working,),
        ends=frozenset({"failed"}),
        failure="disk_full",
        ends_processes=False,
        relieve=free_disk,
        surroundings=_on_small_disk,
    ),
)
MACHINES: tuple[Fault, ...] = (
    *(DISK if can_mount() else ()),
    Fault("store locked for 60 s", lock_store, ends_processes=False),
    Fault(
        "host frozen, other takes over",
        freeze_host,
        ends_processes=False,
        forgets=True,
        relieve=sweep,
        recovers_within=TAKEN_OVER_WITHIN,
    ),
    Fault(
        "SIGTERM, second worker at hand",
        hand_over,
        relieve=find_host,
        ends_processes=False,
        # The first worker lets its jobs run on for five seconds, and then stops them.
        recovers_within=25.0,
    ),
    Fault(
        "host cut off, other takes over",
        cut_host,
        forgets=True,
        relieve=restart_wired_host,
        prepare=use_wired_host,
        recovers_within=TAKEN_OVER_WITHIN,
    ),
    _loss("host lost for good", 0),
    _loss("... other's clock 5 min slow", -300),
    _loss("... other's clock 5 min fast", 300),
)
