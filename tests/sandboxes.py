"""The sandbox that tests run commands in: the one of SANDBOX=on, shared by all of them."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from domain.configuration.isolation import SandboxMode
from sandbox.modes import Sandbox


@functools.cache
def real_sandbox(*visible: Path) -> Sandbox:
    """Make it ready once for each process; it shows the directories `visible` too."""
    directory = Path(tempfile.gettempdir(), f"orchestrator-tests-{os.geteuid()}", "sandbox")
    return Sandbox.ready(
        SandboxMode.ON, directory, os.environ["PATH"], visible, has_own_network=True
    )
