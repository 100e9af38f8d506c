"""Control groups of jobs, in a group delegated to the worker in the same way as by systemd.

Needs root. A limit is tested only if the kernel offers its controller for cgroup v2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sandbox.accounts import PYTHON, Account, readable_directory
from tests.integration.sandbox.contained import etc

ROOT = Path(__file__).parents[3]

WORKER = """
import os, socket, subprocess, sys
from pathlib import Path
from sandbox.supervision import cgroups
from sandbox.bubblewrap import Bubblewrap
from sandbox.containment import Reach, Uncontained
from sandbox.supervision.limits import Limits
kind, etc, work, script, processes, memory = sys.argv[1:]
groups = cgroups.prepare()
assert groups == cgroups.prepare()
if groups is None:
    sys.exit("not delegated")
bubblewrap = Bubblewrap(Path("/usr/bin/bwrap"), Path(etc))
containment = bubblewrap if kind == "contained" else Uncontained()
limits = Limits(int(processes) or None, memory_bytes=int(memory) or None).within(groups)
reach = Reach((Path(work).resolve(),))
supervised = containment.supervised(["/bin/sh", "-c", script], reach, [], limits)
ours, theirs = socket.socketpair()
child = subprocess.Popen(supervised.command_line(theirs.fileno()), pass_fds=[theirs.fileno()])
theirs.close()
with ours.makefile() as said:
    sys.stdout.write(said.read())
child.wait()
left = [name for name in os.listdir(groups) if name.startswith("job-")]
print("left", *left)
"""


@pytest.fixture
def delegated(account: Account) -> Iterator[Path]:
    """A group with the mark of systemd, owned by the account of the worker."""
    with open("/proc/self/mountinfo", encoding="ascii") as file:
        mounts = [Path(row[4]) for row in map(str.split, file) if "cgroup2" in row]
    if os.geteuid() != 0 or not mounts:
        pytest.skip("only root may delegate a group of cgroup v2")
    for controller in (mounts[0] / "cgroup.controllers").read_text().split():
        (mounts[0] / "cgroup.subtree_control").write_text(f"+{controller}")
    group = mounts[0] / f"test-{os.getpid()}"
    group.mkdir()
    os.setxattr(group, "user.delegate", b"1")
    account.own(group)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        account.own(group / name)
    yield group
    for each in (*group.glob("*/"), group):
        each.rmdir()


def run(
    group: Path, account: Account, kind: str, script: str, limits: tuple[int, int]
) -> list[str]:
    """Run a script like a worker in the group; return the output of script and supervisor."""
    enter = 'echo $$ > "$1"; shift; exec setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}"'
    command = [
        *("/bin/bash", "-c", enter, "-", str(group / "cgroup.procs")),
        *(str(account.uid), str(account.gid), PYTHON, "-c", WORKER, kind),
        *(str(etc()), "work", script, *map(str, limits)),
    ]
    with readable_directory() as code:
        for package in ("sandbox", "domain"):
            shutil.copytree(ROOT / package, code / package)
        (code / "work").mkdir()
        account.own(code / "work")
        done = subprocess.run(command, cwd=code, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def require(group: Path, controller: str) -> None:
    if controller not in (group / "cgroup.controllers").read_text().split():
        pytest.skip(f"the kernel offers `{controller}` to cgroup v1 only")


BOMB = "bomb() { bomb | bomb & }; bomb; sleep 60"


@pytest.mark.parametrize("kind", ["contained", "uncontained"])
def test_a_fork_bomb_is_stopped_at_the_limit(delegated: Path, account: Account, kind: str):
    require(delegated, "pids")
    said = run(delegated, account, kind, BOMB, (64, 0))
    assert "limit It started more processes and threads than SANDBOX_PROCESSES allows: 64." in said
    assert said[-1] == "left"
    assert (delegated / "worker/cgroup.procs").read_text() == ""


def test_a_command_within_its_limits_runs(delegated: Path, account: Account):
    script = "grep -c job- /proc/self/cgroup; exit 0"
    said = run(delegated, account, "uncontained", script, (64, 0))
    assert said == ["1", "left"]


def test_memory_is_limited(delegated: Path, account: Account):
    require(delegated, "memory")
    script = "head -c 500M /dev/zero | tail; sleep 60"
    said = run(delegated, account, "contained", script, (0, 64 << 20))
    assert "limit It needed more memory than SANDBOX_MEMORY_GB, which is 0.0625, allows." in said


@pytest.mark.parametrize("kind", ["contained", "uncontained"])
def test_the_watchdog_ends_the_whole_group(delegated: Path, account: Account, kind: str):
    """Without a controller, here because of cgroup v1, the watchdog detects the excess."""
    script = "for n in $(seq 80); do sleep 60 & done; wait"
    said = run(delegated, account, kind, script, (64, 0))
    assert len(said) == (3 if kind == "contained" else 2)
    assert "SANDBOX_PROCESSES" in said[-2]
    assert said[-1] == "left"


def test_a_group_without_the_mark_is_not_used(delegated: Path, account: Account):
    os.removexattr(delegated, "user.delegate")
    with pytest.raises(AssertionError, match="not delegated"):
        run(delegated, account, "uncontained", "exit 0", (64, 0))
