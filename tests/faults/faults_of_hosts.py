"""Faults below the installation: its disk, store, hosts and clocks."""

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
from tests.faults.fault import Fault, Injection
from tests.faults.fault_run import EXIT_SECONDS
from tests.faults.faults_of_processes import sweep, terminate_worker, worker_pid
from tests.faults.installation import Installation
from tests.faults.network_link import NetworkLink
from tests.faults.scenarios import Scenario
from tests.small_disk import SmallDisk, can_mount, small_disk
from tests.stack import ROOT, eventually
from workflows.policies import HEARTBEAT_TIMEOUT

DISK_NAME = "disk"
STORE_OUTAGE = 60.0
"""Seconds; longer than the retries of one request to the store."""

TAKEOVER_SECONDS = 60.0
"""More than the usual 15 s. All jobs restart on the other host at once, each with a clone and a
Claude process, and both hosts share the processors of one machine. The cleanup on the lost host is
retried for 40 s first."""

CUT_SECONDS = 25
"""More than the heartbeat timeout plus the time that another host takes to start the jobs."""

OTHER_HOST = "other-host"
LINKED_HOST = "wired-host"

# The worker of another host, with a clock that differs by some seconds.
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
    """Use a separate small disk for repositories and worktrees."""
    disk = root / DISK_NAME
    with small_disk(disk):
        yield {"REPOS_DIR": str(disk / "repos"), "WORKTREES_DIR": str(disk / "worktrees")}


def fill_disk(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    SmallDisk(installation.stack.root / DISK_NAME).fill()


def free_disk(installation: Installation) -> None:
    SmallDisk(installation.stack.root / DISK_NAME).free()
    terminate_worker(installation, [])


def lock_store(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Lock the store against all writes for a minute."""
    with contextlib.closing(
        sqlite3.connect(installation.stack.root / "data" / "orchestrator.db")
    ) as it:
        it.execute("BEGIN EXCLUSIVE")
        time.sleep(STORE_OUTAGE)
        it.rollback()


def lose_host(clock_off: float) -> Injection:
    """Start another host, and kill this host's worker without a restart."""

    def inject(installation: Installation, scenarios: Sequence[Scenario]) -> None:
        stack = installation.stack
        assert stack.process is not None
        lost = worker_pid(stack)
        _start_host(installation, len(scenarios), clock_off=clock_off)
        os.kill(stack.process.pid, signal.SIGSTOP)  # it must not restart the worker
        os.kill(lost, signal.SIGKILL)

    return inject


def freeze_host(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Start another host that takes over while this host's worker is frozen."""
    frozen = worker_pid(installation.stack)
    _start_host(installation, len(scenarios))
    os.kill(frozen, signal.SIGSTOP)
    threading.Timer(CUT_SECONDS, os.kill, (frozen, signal.SIGCONT)).start()


def return_host(installation: Installation) -> None:
    """Let the lost host return, which then sweeps its remains."""
    assert installation.stack.process is not None
    os.kill(installation.stack.process.pid, signal.SIGCONT)


def hand_over(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Start a second worker on this host, and stop the first with SIGTERM."""
    stack = installation.stack
    assert stack.process is not None
    first = worker_pid(stack)
    _start_worker(installation, len(scenarios))
    os.kill(stack.process.pid, signal.SIGSTOP)  # it must not restart the first worker
    os.kill(first, signal.SIGTERM)


def use_linked_host(installation: Installation) -> None:
    """Run all jobs on a host that reaches Temporal through a network link."""
    stack = installation.stack
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGSTOP)
    os.kill(worker_pid(stack), signal.SIGKILL)
    host, _, port = stack.temporal_address.partition(":")
    installation.links.append(NetworkLink(host, int(port)))
    slots = int(installation.environment["MAX_CONCURRENT_JOBS"])
    _start_host(
        installation, slots, name=LINKED_HOST, TEMPORAL_ADDRESS=installation.links[0].address
    )


def cut_host(installation: Installation, scenarios: Sequence[Scenario]) -> None:
    """Cut the link for longer than the heartbeat timeout; another host takes over.

    The processes on the disconnected host must end before that.
    """
    _start_host(installation, len(scenarios))
    installation.links[0].cut()
    threading.Timer(CUT_SECONDS, installation.links[0].restore).start()
    time.sleep(HEARTBEAT_TIMEOUT.total_seconds() - EXIT_SECONDS)


def restart_linked_host(installation: Installation) -> None:
    """Restart the disconnected host, which then sweeps its remains."""
    installation.helpers[0].terminate()
    installation.helpers[0].wait(30)
    _start_host(installation, 1, name=LINKED_HOST)
    return_host(installation)


def _start_host(
    installation: Installation,
    slots: int,
    *,
    name: str = OTHER_HOST,
    clock_off: float = 0,
    **environment: str,
) -> None:
    """Start the worker of another host, which shares only the store with the first."""
    data = installation.stack.root / name
    data.mkdir(exist_ok=True)
    if not (data / "orchestrator.db").is_symlink():
        (data / "orchestrator.db").symlink_to(installation.stack.root / "data" / "orchestrator.db")
    _start_worker(
        installation,
        slots,
        clock_off,
        DATA_DIR=str(data),
        REPOS_DIR=str(data / "repos"),
        WORKTREES_DIR=str(data / "worktrees"),
        HOST_ID=name,
        **environment,
    )


def _start_worker(
    installation: Installation, slots: int, clock_off: float = 0, **environment: str
) -> None:
    """Start a worker outside of `orchestrator up`."""
    stack = installation.stack
    variables = {
        **stack.environment,
        **installation.environment,
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
    installation.helpers.append(helper)
    eventually(lambda: _boots(boots) - before, 30, "the worker is about to poll")


def _boots(directory: Path) -> set[str]:
    return {file.name for file in directory.glob("*.lock")}


def _loss(name: str, clock_off: float) -> Fault:
    return Fault(
        name,
        lose_host(clock_off),
        loses_session=True,
        clean_up=return_host,
        recovery_seconds=TAKEOVER_SECONDS,
    )


DISK: tuple[Fault, ...] = (
    Fault(
        "disk full",
        fill_disk,
        (phases.Working,),
        ends=frozenset({"failed"}),
        failure="disk_full",
        ends_processes=False,
        clean_up=free_disk,
        setup=_on_small_disk,
    ),
)
HOSTS: tuple[Fault, ...] = (
    *(DISK if can_mount() else ()),
    Fault("store locked for 60 s", lock_store, ends_processes=False),
    Fault(
        "host frozen, other takes over",
        freeze_host,
        ends_processes=False,
        loses_session=True,
        clean_up=sweep,
        recovery_seconds=TAKEOVER_SECONDS,
    ),
    Fault(
        "SIGTERM, second worker runs",
        hand_over,
        clean_up=return_host,
        ends_processes=False,
        # The first worker gives its jobs five seconds, and then stops them.
        recovery_seconds=25.0,
    ),
    Fault(
        "host cut off, other takes over",
        cut_host,
        loses_session=True,
        clean_up=restart_linked_host,
        prepare=use_linked_host,
        recovery_seconds=TAKEOVER_SECONDS,
    ),
    _loss("host lost for good", 0),
    _loss("... other's clock 5 min slow", -300),
    _loss("... other's clock 5 min fast", 300),
)
