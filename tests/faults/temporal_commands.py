"""Temporal's command line, for the server of a stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.stack import Stack


def temporal(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `temporal workflow ...`."""
    program = str(Path(sys.executable).with_name("temporal"))
    return subprocess.run(
        [program, "workflow", *arguments, "--address", stack.temporal_address],
        capture_output=True,
        text=True,
        timeout=30,
    )


def running_workflows(stack: Stack) -> str:
    """Return a list of all running workflows; empty if there are none."""
    listed = temporal(stack, "list", "--query", "ExecutionStatus='Running'", "-o", "jsonl")
    return listed.stdout.strip() if listed.returncode == 0 else listed.stderr
