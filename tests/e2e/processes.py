"""The processes of this host, read from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A running process; `command` and `environment` are raw bytes, separated by zeros."""

    pid: int
    parent: int
    command: bytes
    environment: bytes


def processes() -> Iterator[Process]:
    """Yield every running process that this user may inspect."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            yield Process(int(entry.name), int(fields[1]), command, environment)


def running(code: str) -> list[Process]:
    """List the processes that run exactly this Python code."""
    return [
        process for process in processes() if process.command.split(b"\0")[2:3] == [code.encode()]
    ]


def processes_of(job_id: str) -> list[Process]:
    """List the processes of Claude and its commands, by the job's marker in their environment."""
    found = (process for process in processes() if b"ORCHESTRATOR_RUN=" in process.environment)
    return [process for process in found if job_id.encode() in process.environment]


def commands_of(job_id: str, text: str) -> list[Process]:
    """List the processes of a job with a text in their command line, such as a path."""
    return [process for process in processes_of(job_id) if text.encode() in process.command]


def claude_processes_of(job_id: str) -> list[Process]:
    """List the Claude CLIs of a job, without their supervisors, sandboxes and commands."""
    around = (b"supervisor.py", b"bwrap")
    return [
        process
        for process in processes_of(job_id)
        if b"--output-format" in process.command
        and not any(word in process.command for word in around)
    ]
