"""`orchestrator doctor` finds each usual mistake and names its remedy."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.doctor import isolation
from commands.doctor.examination import examine
from domain.names.ids import new_id
from domain.repositories import Client, Repository
from domain.timestamps import utc_now
from fakes.github.server import FakeGitHub
from fakes.github.tokens import TokenGrant
from fakes.ports import free_ports
from sandbox import bubblewrap, modes
from sandbox.bubblewrap import Bubblewrap
from sandbox.modes import Unavailable
from settings import Settings
from store.sqlite.store import SqliteStore
from tests.integration.host.test_reports import CLAUDE

ISOLATION = {
    "namespaces can be created",
    "jobs have their own /proc, without other processes",
    "jobs cannot write kernel settings",
    "jobs have no network interface except their own loopback",
    "git can commit inside",
    "the proxy can listen inside",
}

GOOD, READING, NARROW = "good-token", "reading-token", "narrow-token"


@pytest.fixture(scope="module")
def github_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tokens = {
        GOOD: TokenGrant("writer"),
        READING: TokenGrant("reader", permission="read", scopes=None),
        NARROW: TokenGrant("gist-only", scopes="gist"),
    }
    github = FakeGitHub(tmp_path_factory.mktemp("github"), tokens)
    github.create_repository("acme", "site", files={"README.md": "hi\n"})
    with github.serve() as url:
        yield url


class Doctor:
    """Runs `orchestrator doctor` in a correct environment with the changes of a test."""

    def __init__(self, root: Path, github_url: str) -> None:
        self.root = root
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(root),
            "GITHUB_TOKEN": GOOD,
            "GITHUB_SERVER_URL": github_url,
            "GITHUB_API_URL": f"{github_url}/api",
            "ANTHROPIC_API_KEY": "key",
        }
        self.lines: list[str] = []

    async def run(self, **environment: str) -> int:
        settings = Settings.from_env({**self.environment, **environment})
        self.lines.clear()
        return await examine(settings, SqliteStore(settings.host.sqlite_path), self.lines.append)

    def problem(self, subject: str) -> str:
        """Return the only line with a problem of a subject."""
        [line] = [
            line
            for line in self.lines
            if line[9:].startswith(subject) and not line.startswith("ok")
        ]
        return line


@pytest.fixture
def doctor(tmp_path: Path, github_url: str) -> Doctor:
    return Doctor(tmp_path, github_url)


async def add_repository(root: Path) -> None:
    store = SqliteStore(root / ".claude-code-orchestrator" / "orchestrator.db")
    await store.open()
    now = utc_now()
    client = Client(new_id(), "Acme", now)
    await store.create_client(client)
    await store.add_repository(
        Repository(new_id(), client.id, "acme", "site", "main", None, now, now)
    )
    await store.close()


async def test_a_correct_installation_has_no_problem(doctor: Doctor):
    await add_repository(doctor.root)
    assert await doctor.run() == 0
    root_warnings = [
        line
        for line in doctor.lines
        if line.startswith("warning  user: The orchestrator runs as root")
    ]
    assert len(root_warnings) == (os.geteuid() == 0)
    assert all(line.startswith("ok ") for line in doctor.lines if line not in root_warnings)
    assert "ok       GitHub acme/site: the token may push" in doctor.lines


async def test_a_missing_token(doctor: Doctor):
    assert await doctor.run(GITHUB_TOKEN="") == 1
    assert "GITHUB_TOKEN is not set" in doctor.problem("GitHub")


async def test_a_token_that_github_refuses(doctor: Doctor):
    assert await doctor.run(GITHUB_TOKEN="wrong") == 1
    assert "GITHUB_TOKEN" in doctor.problem("GitHub")


async def test_a_classic_token_without_the_scope(doctor: Doctor):
    assert await doctor.run(GITHUB_TOKEN=NARROW) == 1
    assert "`repo` scope" in doctor.problem("GitHub")


async def test_a_token_that_may_only_read(doctor: Doctor):
    await add_repository(doctor.root)
    assert await doctor.run(GITHUB_TOKEN=READING) == 0
    assert "may not push" in doctor.problem("GitHub acme/site")


async def test_github_does_not_answer(doctor: Doctor):
    [port] = free_ports(1)
    assert await doctor.run(GITHUB_API_URL=f"http://127.0.0.1:{port}") == 1
    assert "could not be reached" in doctor.problem("GitHub")


async def test_claude_is_not_logged_in(doctor: Doctor):
    assert await doctor.run(ANTHROPIC_API_KEY="") == 1
    assert "is not logged in. Set ANTHROPIC_API_KEY" in doctor.problem("Claude")


async def test_claude_is_not_installed(doctor: Doctor):
    assert await doctor.run(CLAUDE_BIN="/nowhere/claude") == 1
    assert "CLAUDE_BIN names '/nowhere/claude'" in doctor.problem("Claude")


async def test_the_isolation_of_the_sandbox_is_checked(doctor: Doctor):
    await doctor.run()
    assert {f"ok       sandbox: {state}" for state in ISOLATION} <= set(doctor.lines)
    assert any(line.startswith("ok       sandbox: bubblewrap 0.") for line in doctor.lines)
    assert (
        "ok       credential: hidden from jobs; the proxy adds it to their requests" in doctor.lines
    )
    memory = "a job that uses more than 8 GiB is stopped (checked every 0.5 s)"
    assert f"ok       memory: {memory}" in doctor.lines


async def test_bubblewrap_is_not_installed(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    def find(search_path: str) -> Path:
        raise Unavailable("bubblewrap is not installed.")

    monkeypatch.setattr(modes, "find_bubblewrap", find)
    assert await doctor.run() == 1
    for subject in ("sandbox", "Claude"):
        assert "bubblewrap is not installed" in doctor.problem(subject)


async def test_a_sandbox_that_does_not_isolate(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bubblewrap, "around", lambda self, command, reach: [*command])
    assert await doctor.run() == 1
    output = "\n".join(doctor.lines)
    assert re.search(r"PROBLEM  sandbox: Jobs see \d+ processes", output)
    assert "PROBLEM  sandbox: Jobs have these network interfaces: " in output
    if os.access("/proc/sys/kernel/core_pattern", os.W_OK):
        assert "PROBLEM  sandbox: Jobs can write /proc/sys/kernel/core_pattern" in output


async def test_no_socket_can_listen_inside(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(isolation, "PORT", 99_999)
    assert await doctor.run() == 1
    assert "No socket can listen inside" in doctor.problem("sandbox")


async def test_weaker_modes_give_a_warning(doctor: Doctor):
    assert await doctor.run(SANDBOX="off", GITHUB_TOKEN=GOOD) == 0
    assert "can read every file and secret" in doctor.problem("sandbox")
    assert "Jobs can read Claude's credential: with SANDBOX=off" in doctor.problem("credential")
    assert await doctor.run(SANDBOX_NETWORK="host") == 0
    assert "SANDBOX_NETWORK=host: jobs reach every address" in doctor.problem("sandbox")


async def test_landlock(doctor: Doctor):
    assert await doctor.run(SANDBOX="landlock") == 0
    assert "services on loopback (such as Temporal)" in doctor.problem("sandbox")
    assert any(line.startswith("ok       sandbox: Landlock, ABI ") for line in doctor.lines)
    assert "ok       sandbox: git can commit inside" in doctor.lines


@pytest.mark.parametrize("sandbox", ["landlock", "on"])
async def test_the_credential_of_a_cloud_cannot_be_hidden(doctor: Doctor, sandbox: str):
    await doctor.run(
        CLAUDE_CODE_USE_BEDROCK="1",
        AWS_BEARER_TOKEN_BEDROCK="token",
        AWS_REGION="eu-central-1",
        SANDBOX=sandbox,
    )
    assert "Bedrock, Vertex and Foundry need it" in doctor.problem("credential")


def a_program(path: Path, script: str = "#!/bin/sh\necho 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    return path


async def test_a_program_that_needs_files_that_jobs_do_not_see(doctor: Doctor):
    """The shims of pyenv are such programs."""
    real = a_program(doctor.root / "lib" / "real")
    shim = a_program(doctor.root / "shims" / "git-lfs", f"#!/bin/sh\nexec {real}\n")
    path, shims = f"{shim.parent}:/usr/bin:/bin", str(shim.parent)
    assert await doctor.run(PATH=path, SANDBOX_READ=shims) == 0
    assert f"{shim} does not run in the sandbox" in doctor.problem("PATH")
    assert await doctor.run(PATH=path, SANDBOX_READ=f"{shims}:{real.parent}") == 0
    assert any(line.startswith("ok       PATH: ") and "git-lfs" in line for line in doctor.lines)


async def test_directories_of_path_that_jobs_do_not_see(doctor: Doctor):
    assert await doctor.run(PATH=f"/usr/bin:/bin:{doctor.root}") == 0
    assert f"do not have {doctor.root} on their PATH" in doctor.problem("PATH")


async def test_a_directory_of_path_that_does_not_exist_inside(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
):
    tools = a_program(doctor.root / "tools" / "x").parent
    monkeypatch.setattr(bubblewrap, "_readable", lambda paths: iter(()))
    await doctor.run(PATH=f"/usr/bin:/bin:{tools}", SANDBOX_READ=str(tools))
    assert f"do not see {tools}. Add it to SANDBOX_READ" in doctor.problem("PATH")


async def test_a_cli_that_does_not_run_inside(doctor: Doctor):
    real = a_program(doctor.root / "lib" / "real", CLAUDE)
    claude = a_program(doctor.root / "bin" / "claude", f'#!/bin/sh\nexec {real} "$@"\n')
    assert await doctor.run(CLAUDE_BIN=str(claude)) == 1
    assert "runs, but not in the sandbox" in doctor.problem("Claude")
    assert await doctor.run(CLAUDE_BIN=str(claude), SANDBOX_READ=str(real.parent)) == 0


async def test_mcp_servers(doctor: Doctor):
    interpreter = a_program(doctor.root / "lib" / "interpreter")
    script = a_program(doctor.root / "bin" / "serve", f"#!{interpreter}\n")
    servers = {
        "good": {"command": "sh", "args": ["/usr/bin/env"]},
        "script": {"command": str(script)},
        "missing": {"command": "sh", "args": ["/nowhere/server.js"]},
        "unknown": {"command": "no-such-program"},
        "relative": {"command": "./serve"},
        "nothing": {},
        "local": {"url": "http://localhost:8080/mcp"},
        "six": {"url": "http://[::1]:8080/mcp"},
        "filled-in": {"url": "https://${MCP_HOST}/"},
    }
    config = doctor.root / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    assert await doctor.run(MCP_CONFIG=str(config)) == 0
    assert "ok       MCP good: jobs can read its program and files" in doctor.lines
    assert "ok       MCP local: jobs may connect to localhost:8080 (not tested)" in doctor.lines
    for name, words in {
        "script": f"cannot run {interpreter}. Add its directory",
        "missing": "cannot read /nowhere/server.js, which is part of its command",
        "unknown": "not a program on PATH",
        "relative": "not a program on PATH",
        "nothing": "neither a command nor a URL",
        "six": "Write 127.0.0.1 instead",
        "filled-in": "Write its host and port without variables",
    }.items():
        assert words in doctor.problem(f"MCP {name}")


async def test_a_directory_that_cannot_be_created(doctor: Doctor):
    (doctor.root / "file").write_text("")
    assert await doctor.run(WORKTREES_DIR=str(doctor.root / "file" / "below")) == 1
    assert "Not a directory" in doctor.problem("WORKTREES_DIR")


async def test_the_store_is_not_a_database(doctor: Doctor):
    data = doctor.root / ".claude-code-orchestrator"
    data.mkdir()
    (data / "orchestrator.db").write_text("this is not a database" * 99)
    assert await doctor.run() == 1
    assert doctor.problem("store")


async def test_temporal_does_not_answer(doctor: Doctor):
    [port] = free_ports(1)
    assert await doctor.run(TEMPORAL_ADDRESS=f"127.0.0.1:{port}") == 1
    assert "correct TEMPORAL_ADDRESS" in doctor.problem("Temporal")


async def test_the_publishable_key_of_supabase(doctor: Doctor):
    code = await doctor.run(
        SUPABASE_URL="http://127.0.0.1:9", SUPABASE_SERVICE_ROLE_KEY="sb_publishable_x"
    )
    assert code == 1
    assert "the secret key" in doctor.problem("store")


@pytest.mark.parametrize(
    ("script", "words"),
    [("#!/bin/sh\necho git version 2.20.1\n", "too old"), (None, "Install git")],
)
async def test_git_is_old_or_missing(doctor: Doctor, script: str | None, words: str):
    tools = doctor.root / "tools"
    tools.mkdir()
    if script is not None:
        (tools / "git").write_text(script)
        (tools / "git").chmod(0o755)
    assert await doctor.run(PATH=f"{tools}") == 1
    assert words in doctor.problem("git")
