"""The machines that run jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

HOST_REPORT_INTERVAL = timedelta(seconds=2)
HOST_LIVE_FOR = timedelta(seconds=10)
"""A host whose last report is older is gone: five missed reports."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a worker process reports of its machine every `HOST_REPORT_INTERVAL`.

    `boot_id` is new at each process start, so `task_queue` names one life of one process.
    `claude_login_type` is `api_key`, `oauth_token`, `subscription`, `cloud` or None. `sandbox` and
    `sandbox_network` are as the settings of these names have them in effect, and `sandbox_ok` tells
    whether that sandbox works. The defaults are those of a worker that has no sandbox yet.
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
