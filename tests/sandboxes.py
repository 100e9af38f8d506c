"""The sandbox that tests run commands in: the one of SANDBOX=on, shared by all of them."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from sandbox.modes import Sandbox, SandboxMode


@functools.cache
def real_sandbox() -> Sandbox:
    """Make it ready once for each process."""
    directory = Path(tempfile.gettempdir(), f"orchestrator-tests-{os.geteuid()}", "sandbox")
    search_path = os.environ["PATH"]
    visible = [Path(entry) for entry in search_path.split(":")]
    return Sandbox.ready(SandboxMode.ON, directory, search_path, visible, has_own_network=True)
