"""The hosts that run jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

HOST_REPORT_INTERVAL = timedelta(seconds=2)
HOST_LIVE_FOR = timedelta(seconds=10)
"""A host with an older report counts as lost: it missed five reports."""


@dataclass(frozen=True, slots=True)
class Host:
    """The report that a worker process sends every `HOST_REPORT_INTERVAL`.

    Each process start has a new `boot_id`, so a `task_queue` belongs to one process.
    `claude_login_type` is `api_key`, `oauth_token`, `subscription`, `cloud` or None. `sandbox` and
    `sandbox_network` are the values in effect for these settings. `sandbox_ok` is whether that
    sandbox works. The defaults describe a worker without a sandbox.
    """

    id: str
    boot_id: str
    task_queue: str
    slots: int
    last_seen: datetime
    claude_version: str | None = None
    claude_authenticated: bool = False
    claude_login_type: str | None = None
    git_authenticated: bool = False
    git_user: str | None = None
    sandbox: str = "off"
    sandbox_ok: bool = False
    sandbox_network: str = "host"
    credential_hidden: bool = False
