"""A Docker engine of our own, in the network namespace of the process that starts it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.compose import programs

START_SECONDS = 60.0
STOP_SECONDS = 60.0

GATEWAY = "172.31.240.1"
"""Under which containers reach the process that runs the engine."""


class Engine:
    """A running engine.

    Args:
        directory: has its socket, its log and, under `data`, its images and volumes.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **programs.environment(),
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
        }

    def run(self, *arguments: str | Path, check: bool = True, seconds: float = 900) -> str:
        """Run `docker` and return its standard output."""
        ended = subprocess.run(
            ["docker", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout


@contextlib.contextmanager
def running_engine(directory: Path) -> Iterator[Engine]:
    """Run an engine that changes nothing of the host's network."""
    directory.mkdir(parents=True, exist_ok=True)
    engine = Engine(directory)
    options = {
        "bridge": "none",
        # There, names that the engine does not know are refused at once.
        "dns": GATEWAY,
        "iptables": "false",
        "ip6tables": "false",
        "ip-forward": "false",
        "ip-masq": "false",
        "data-root": directory / "data",
        "exec-root": directory / "exec",
        "pidfile": directory / "pid",
        "host": engine.environment["DOCKER_HOST"],
    }
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            ["dockerd", *(f"--{name}={value}" for name, value in options.items())],
            env=engine.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not engine.run("info", "--format", "{{.ServerVersion}}", check=False).strip():
            assert process.poll() is None, (directory / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the engine does not answer"
            time.sleep(0.2)
        yield engine
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
