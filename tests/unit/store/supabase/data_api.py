"""Supabase's HTTP interface to a database: Supabase's npm package @supabase/lite."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from fakes.ports import free_ports
from tests.stack import eventually
from tests.unit.store.supabase.installation import DATA_API, node
from tests.unit.store.supabase.processes import Server

SECRET_KEY = "sb_secret_ThatOnlyTheTestsKnow0123456789"
PUBLISHABLE_KEY = "sb_publishable_ThatOnlyTheTestsKnow01"

START_SECONDS = 30.0

_CONFIGURATION = """
[api]
port = {port}
max_rows = {max_rows}

[db]
driver = "postgres"
url = "{database}"

[auth]
enabled = false
secret_key = "env(SUPABASE_SECRET_KEY)"
publishable_key = "env(SUPABASE_PUBLISHABLE_KEY)"
"""


class DataApi:
    """A running server for one database.

    Args:
        database: its address.
        work: a directory of its own.
        max_rows: how many rows it gives out at a time; Supabase's own default.
    """

    def __init__(self, database: str, work: Path, max_rows: int = 1000) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        (work / "supabase").mkdir(parents=True)
        (work / "supabase" / "config.toml").write_text(
            _CONFIGURATION.format(port=port, database=database, max_rows=max_rows)
        )
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work),
            "DO_NOT_TRACK": "1",
            "LITE_TELEMETRY": "0",
            "SUPABASE_SECRET_KEY": SECRET_KEY,
            "SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE_KEY,
        }
        # Without --no-admin, requests without a key would have all permissions.
        command = [node(), str(DATA_API), "start", "--no-admin"]
        self._server = Server(command, work / "lite.log", environment, work, signal.SIGTERM)
        try:
            eventually(self._answers, START_SECONDS, "the data API answers")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._server.stop()

    def _answers(self) -> bool:
        self._server.check()
        try:
            headers = {"apikey": SECRET_KEY}
            return httpx.get(f"{self.url}/rest/v1/", headers=headers, timeout=5.0).is_success
        except httpx.TransportError:
            return False
