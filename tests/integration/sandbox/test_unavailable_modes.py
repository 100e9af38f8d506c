"""A mode that does not work on this host runs no command, and names the reason and remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from domain.configuration.isolation import SandboxMode
from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox.containment import Reach
from sandbox.modes import CHECKED_FOR, Sandbox
from sandbox.supervision.limits import Limits
from tests.integration.sandbox.accounts import Account
from tests.integration.sandbox.contained import SEARCH_PATH, contained_room, etc

ROOT = Path(__file__).parents[3]

PROBLEM = """
import sys
from pathlib import Path
from sandbox.modes import Sandbox
from domain.configuration.isolation import SandboxMode
mode, directory, path = SandboxMode(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sandbox = Sandbox.ready(mode, directory, path, [], has_own_network=True)
sys.stdout.write(sandbox.problem() or "")
"""


def ready(directory: Path, search_path: str, mode: SandboxMode = SandboxMode.ON) -> Sandbox:
    return Sandbox.ready(mode, directory, search_path, [], has_own_network=True)


def program(directory: Path, text: str) -> str:
    """Create a fake `bwrap` and return a PATH with it."""
    directory.mkdir()
    bwrap = directory / "bwrap"
    bwrap.write_text(f"#!/bin/sh\n{text}\n")
    bwrap.chmod(0o755)
    return str(directory)


async def refusal(sandbox: Sandbox) -> str:
    """Return the message of the refusal."""
    with pytest.raises(JobFailure) as refused:
        await sandbox.require()
    assert refused.value.code is FailureCode.SANDBOX_UNAVAILABLE
    problem = sandbox.problem()
    assert problem is not None
    assert refused.value.message == (
        f"Claude was not started, because this host cannot isolate it: {problem}"
    )
    return refused.value.message


@pytest.mark.parametrize("is_old", [False, True], ids=["missing", "old"])
async def test_without_a_usable_bubblewrap_no_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    old = program(tmp_path / "bin", "echo bubblewrap 0.4.1")
    sandbox = ready(tmp_path, old if is_old else "/nowhere")
    message = await refusal(sandbox)
    assert "Install version 0.8 or newer (`apt-get install bubblewrap`)" in message
    assert "SANDBOX=off" in message
    for attempt in (
        lambda: sandbox.containment.around(["/bin/true"], Reach(())),
        lambda: sandbox.containment.supervised(["/bin/true"], Reach(()), [], Limits()),
    ):
        with pytest.raises(JobFailure, match="bubblewrap is not installed"):
            attempt()


async def test_a_kernel_that_refuses_namespaces_is_quoted(tmp_path: Path):
    said = "bwrap: setting up uid map: Permission denied"
    script = f'[ "$1" = --version ] && exec echo bubblewrap 0.8.0\necho {said!r} >&2; exit 1'
    message = await refusal(ready(tmp_path, program(tmp_path / "bin", script)))
    assert f"({said})" in message
    assert "SANDBOX=landlock" in message
    assert "CAP_SETFCAP" in message


async def test_a_bubblewrap_that_no_longer_runs_is_named(tmp_path: Path):
    path = program(tmp_path / "bin", "echo bubblewrap 0.8.0")
    sandbox = ready(tmp_path, path)
    shutil.rmtree(path)
    assert "bwrap cannot be run: " in await refusal(sandbox)


def test_user_namespaces_are_exhausted(tmp_path: Path):
    """In a real user namespace with a limit of 0, as set by a sysctl or a container."""
    bwrap = shutil.which("bwrap") or pytest.skip("bwrap is not installed")
    command = [
        *(bwrap, "--unshare-user", "--disable-userns", "--bind", "/", "/", "--dev", "/dev"),
        *(sys.executable, "-c", PROBLEM, "on", str(tmp_path / "data"), SEARCH_PATH),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The kernel refuses bubblewrap its namespaces (bwrap: ")


async def test_bubblewrap_that_fails_at_the_start_of_claude_starts_no_command(account: Account):
    """The kernel may refuse a namespace that it allowed a moment ago."""
    with contained_room(account) as job:
        marker = job.work / "started"
        failing = program(job.base / "bin", "echo no >&2; exit 1")
        bubblewrap = type(job.bubblewrap)(Path(failing, "bwrap"), etc())
        ended = await job.run("/usr/bin/touch", marker, bubblewrap=bubblewrap)
        assert ended.control.has_no_sandbox
        assert ended.code == 1
        assert not marker.exists()


async def test_a_kernel_without_landlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A replacement launcher fails in the same way as `sandbox.landlock` without Landlock."""
    launcher = tmp_path / "landlock.py"
    sentence = "The kernel does not offer Landlock."
    launcher.write_text(f"import sys\nsys.exit({sentence!r})\n")
    monkeypatch.setattr("sandbox.landlock.__file__", str(launcher))
    message = await refusal(ready(tmp_path, SEARCH_PATH, SandboxMode.LANDLOCK))
    assert f"Landlock does not work here: {sentence}" in message


async def test_a_working_mode_is_not_checked_again_at_once(tmp_path: Path):
    count = tmp_path / "count"
    real = shutil.which("bwrap") or pytest.skip("bwrap is not installed")
    path = program(tmp_path / "bin", f'echo x >> {count}\nexec {real} "$@"')
    sandbox = ready(tmp_path, path)
    for _ in range(3):
        await sandbox.require(within=CHECKED_FOR)
    assert count.read_text().split() == ["x", "x"]
    assert sandbox.problem() is None
