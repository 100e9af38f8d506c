"""A Postgres 17 server with the roles of Supabase, migrated by Supabase's CLI."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from fakes.ports import free_ports
from tests.stack import ROOT, eventually
from tests.unit.store.supabase.installation import CLI, postgres_programs
from tests.unit.store.supabase.processes import NOBODY, Server, as_nobody, drops_root

MIGRATIONS = ROOT / "supabase" / "migrations"

START_SECONDS = 30.0
COMMAND_SECONDS = 60

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "50",
}

_ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
"""

# The default permissions of Supabase projects: all for the public roles, which the migrations must
# revoke. None for the service role, as in newer projects.
_RIGHTS = """
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated;
alter default privileges in schema public grant all on functions to anon, authenticated;
"""


class PostgresServer:
    """A running server. `stop` removes its files.

    Args:
        work: a directory for logs and for the CLI.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        # Not in pytest's directory, which other users cannot access.
        self._home = Path(tempfile.mkdtemp(prefix="store-postgres-"))
        (self._port,) = free_ports(1)
        try:
            self._programs = self._reachable_programs()
            self._initialize()
            self._server = self._start()
        except BaseException:
            self._remove()
            raise

    def stop(self) -> None:
        self._server.stop()
        self._remove()

    def address(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def create_database(self, name: str) -> None:
        """Create a database like that of a new Supabase project."""
        self.run("template1", f'create database "{name}"')
        self.run(name, _RIGHTS)

    def run(self, database: str, script: str) -> str:
        """Run SQL and return its output without headings."""
        # By standard input, because the limit of an argument is 128 KiB.
        command = [str(self._programs / "psql"), "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [*command, self.address(database)],
            input=script,
            env={"PATH": os.environ["PATH"], "PGCLIENTENCODING": "UTF8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def push(self, database: str) -> str:
        """Apply this checkout's migrations with Supabase's CLI and return its output."""
        home = self._work / "cli"
        (home / ".supabase").mkdir(parents=True, exist_ok=True)
        (home / ".supabase" / "telemetry.json").write_text('{"enabled":false,"schema_version":1}')
        # A copy, because the CLI writes files beside the migrations.
        copy = home / "supabase" / "migrations"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        for script in MIGRATIONS.glob("*.sql"):
            shutil.copy(script, copy)
        address = f"{self.address(database)}?sslmode=disable"
        command = [str(CLI), "db", "push", "--yes", "--workdir", str(home), "--db-url", address]
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "DO_NOT_TRACK": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:]
        return done.stdout

    def _reachable_programs(self) -> Path:
        """Return a directory of the Postgres programs that the server's user can access."""
        programs = postgres_programs()
        if not drops_root():
            return programs
        shutil.copytree(programs.parent, self._home / "postgres", symlinks=True)
        os.chown(self._home, NOBODY, NOBODY)
        return self._home / "postgres" / programs.name

    def _initialize(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self._home / "data"), "-U", "postgres"]
        done = subprocess.run(
            as_nobody([*command, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]),
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def _start(self) -> Server:
        settings = [part for item in _SETTINGS.items() for part in ("-c", "=".join(item))]
        command = [str(self._programs / "postgres"), "-D", str(self._home / "data")]
        server = Server(
            [*command, "-p", str(self._port), *settings],
            self._work / "postgres.log",
            {"PATH": os.environ["PATH"], "TZ": "UTC"},
            Path("/"),
            signal.SIGINT,
            refuses_root=True,
        )
        try:
            eventually(lambda: self._answers(server), START_SECONDS, "Postgres answers")
            self.run("postgres", _ROLES + _RIGHTS)
        except BaseException:
            server.stop()
            raise
        return server

    def _answers(self, server: Server) -> bool:
        server.check()
        command = [str(self._programs / "pg_isready"), "-q", "-d", self.address("postgres")]
        return subprocess.run(command, timeout=COMMAND_SECONDS, check=False).returncode == 0

    def _remove(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
