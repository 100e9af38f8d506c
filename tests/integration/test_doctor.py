"""`orchestrator doctor`: each thing a newcomer gets wrong, found and named with its remedy."""

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

WALLS = {
    "namespaces can be made",
    "a fresh /proc, without the processes of others",
    "settings of the kernel cannot be written",
    "no network interface but its own loopback",
    "git commits inside",
    "its proxy can listen inside",
}

GOOD, READING, NARROW = "good-token", "reading-token", "narrow-token"


@pytest.fixture(scope="module")
def forge_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tokens = {
        GOOD: TokenGrant("writer"),
        READING: TokenGrant("reader", permission="read", scopes=None),
        NARROW: TokenGrant("gist-only", scopes="gist"),
    }
    forge = FakeGitHub(tmp_path_factory.mktemp("forge"), tokens)
    forge.create_repository("acme", "site", files={"README.md": "hi\n"})
    with forge.serve() as url:
        yield url


class Clinic:
    """Runs the doctor with a healthy environment, less what a test spoils."""

    def __init__(self, root: Path, forge_url: str) -> None:
        self.root = root
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(root),
            "GITHUB_TOKEN": GOOD,
            "GITHUB_SERVER_URL": forge_url,
            "GITHUB_API_URL": f"{forge_url}/api",
            "ANTHROPIC_API_KEY": "key",
        }
        self.lines: list[str] = []

    async def visit(self, **environment: str) -> int:
        settings = Settings.from_env({**self.environment, **environment})
        self.lines.clear()
        return await examine(settings, SqliteStore(settings.sqlite_path), self.lines.append)

    def complaint(self, subject: str) -> str:
        """The line about a subject that is not well."""
        [line] = [
            line
            for line in self.lines
            if line[9:].startswith(subject) and not line.startswith("ok")
        ]
        return line


@pytest.fixture
def clinic(tmp_path: Path, forge_url: str) -> Clinic:
    return Clinic(tmp_path, forge_url)


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


async def test_all_is_well(clinic: Clinic):
    await add_repository(clinic.root)
    assert await clinic.visit() == 0
    of_root = [line for line in clinic.lines if line.startswith("warning  user: This is root")]
    assert len(of_root) == (os.geteuid() == 0)
    assert all(line.startswith("ok ") for line in clinic.lines if line not in of_root)
    assert "ok       GitHub acme/site: the token may push" in clinic.lines


async def test_no_token(clinic: Clinic):
    assert await clinic.visit(GITHUB_TOKEN="") == 1
    assert "Set GITHUB_TOKEN" in clinic.complaint("GitHub")


async def test_a_token_github_refuses(clinic: Clinic):
    assert await clinic.visit(GITHUB_TOKEN="wrong") == 1
    assert "GITHUB_TOKEN" in clinic.complaint("GitHub")


async def test_a_classic_token_without_the_scope(clinic: Clinic):
    assert await clinic.visit(GITHUB_TOKEN=NARROW) == 1
    assert "`repo` scope" in clinic.complaint("GitHub")


async def test_a_token_that_may_only_read(clinic: Clinic):
    await add_repository(clinic.root)
    assert await clinic.visit(GITHUB_TOKEN=READING) == 0
    assert "may not push" in clinic.complaint("GitHub acme/site")


async def test_github_does_not_answer(clinic: Clinic):
    [port] = free_ports(1)
    assert await clinic.visit(GITHUB_API_URL=f"http://127.0.0.1:{port}") == 1
    assert "could not be reached" in clinic.complaint("GitHub")


async def test_claude_is_not_logged_in(clinic: Clinic):
    assert await clinic.visit(ANTHROPIC_API_KEY="") == 1
    assert "is not logged in. Set ANTHROPIC_API_KEY" in clinic.complaint("Claude")


async def test_claude_is_not_there(clinic: Clinic):
    assert await clinic.visit(CLAUDE_BIN="/nowhere/claude") == 1
    assert "CLAUDE_BIN names '/nowhere/claude'" in clinic.complaint("Claude")


async def test_every_wall_of_the_sandbox_is_tried(clinic: Clinic):
    await clinic.visit()
    assert {f"ok       sandbox: {wall}" for wall in WALLS} <= set(clinic.lines)
    assert any(line.startswith("ok       sandbox: bubblewrap 0.") for line in clinic.lines)
    assert "ok       credential: jobs do not see it; the proxy puts it in place" in clinic.lines
    assert "ok       memory: a job of over 8 GiB is stopped, by a look every 0.5 s" in clinic.lines


async def test_there_is_no_bubblewrap(clinic: Clinic, monkeypatch: pytest.MonkeyPatch):
    def find(search_path: str) -> Path:
        raise Unavailable("bubblewrap is not installed.")

    monkeypatch.setattr(modes, "find_bubblewrap", find)
    assert await clinic.visit() == 1
    for subject in ("sandbox", "Claude"):
        assert "bubblewrap is not installed" in clinic.complaint(subject)


async def test_walls_that_do_not_stand(clinic: Clinic, monkeypatch: pytest.MonkeyPatch):
    """As of a bwrap that puts nothing around the command."""
    monkeypatch.setattr(Bubblewrap, "around", lambda self, command, reach: [*command])
    assert await clinic.visit() == 1
    said = "\n".join(clinic.lines)
    assert re.search(r"PROBLEM  sandbox: Jobs see \d+ processes", said)
    assert "PROBLEM  sandbox: Jobs have these network interfaces: " in said
    if os.access("/proc/sys/kernel/core_pattern", os.W_OK):
        assert "PROBLEM  sandbox: Jobs can write /proc/sys/kernel/core_pattern" in said


async def test_no_socket_can_be_handed_out(clinic: Clinic, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(isolation, "PORT", 99_999)
    assert await clinic.visit() == 1
    assert "No socket can listen inside" in clinic.complaint("sandbox")


async def test_modes_with_less_are_warned_of(clinic: Clinic):
    assert await clinic.visit(SANDBOX="off", GITHUB_TOKEN=GOOD) == 0
    assert "can read every file and secret" in clinic.complaint("sandbox")
    assert "Jobs can read it: without a sandbox" in clinic.complaint("credential")
    assert await clinic.visit(SANDBOX_NETWORK="host") == 0
    assert "SANDBOX_NETWORK=host: jobs reach all" in clinic.complaint("sandbox")


async def test_landlock(clinic: Clinic):
    assert await clinic.visit(SANDBOX="landlock") == 0
    assert "services on loopback (such as Temporal)" in clinic.complaint("sandbox")
    assert any(line.startswith("ok       sandbox: Landlock, ABI ") for line in clinic.lines)
    assert "ok       sandbox: git commits inside" in clinic.lines


@pytest.mark.parametrize("landlock", ["landlock", "on"])
async def test_a_cloud_cannot_be_hidden(clinic: Clinic, landlock: str):
    await clinic.visit(
        CLAUDE_CODE_USE_BEDROCK="1",
        AWS_BEARER_TOKEN_BEDROCK="token",
        AWS_REGION="eu-central-1",
        SANDBOX=landlock,
    )
    assert "Bedrock, Vertex and Foundry need it" in clinic.complaint("credential")


def a_program(path: Path, script: str = "#!/bin/sh\necho 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    return path


async def test_a_program_on_path_that_uses_what_jobs_do_not_see(clinic: Clinic):
    """As the shims of pyenv do."""
    real = a_program(clinic.root / "lib" / "real")
    shim = a_program(clinic.root / "shims" / "git-lfs", f"#!/bin/sh\nexec {real}\n")
    path, shims = f"{shim.parent}:/usr/bin:/bin", str(shim.parent)
    assert await clinic.visit(PATH=path, SANDBOX_READ=shims) == 0
    assert f"{shim} does not run inside" in clinic.complaint("PATH")
    assert await clinic.visit(PATH=path, SANDBOX_READ=f"{shims}:{real.parent}") == 0
    assert any(line.startswith("ok       PATH: ") and "git-lfs" in line for line in clinic.lines)


async def test_directories_of_path_that_jobs_do_not_see(clinic: Clinic):
    assert await clinic.visit(PATH=f"/usr/bin:/bin:{clinic.root}") == 0
    assert f"do not have {clinic.root} on their PATH" in clinic.complaint("PATH")


async def test_a_directory_of_path_that_is_not_there_inside(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
):
    tools = a_program(clinic.root / "tools" / "x").parent
    monkeypatch.setattr(bubblewrap, "_readable", lambda paths: iter(()))
    await clinic.visit(PATH=f"/usr/bin:/bin:{tools}", SANDBOX_READ=str(tools))
    assert f"do not see {tools}. Add it to SANDBOX_READ" in clinic.complaint("PATH")


async def test_a_cli_that_does_not_run_inside(clinic: Clinic):
    real = a_program(clinic.root / "lib" / "real", CLAUDE)
    claude = a_program(clinic.root / "bin" / "claude", f'#!/bin/sh\nexec {real} "$@"\n')
    assert await clinic.visit(CLAUDE_BIN=str(claude)) == 1
    assert "runs, but not in the sandbox" in clinic.complaint("Claude")
    assert await clinic.visit(CLAUDE_BIN=str(claude), SANDBOX_READ=str(real.parent)) == 0


async def test_mcp_servers(clinic: Clinic):
    interpreter = a_program(clinic.root / "lib" / "interpreter")
    script = a_program(clinic.root / "bin" / "serve", f"#!{interpreter}\n")
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
    config = clinic.root / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    assert await clinic.visit(MCP_CONFIG=str(config)) == 0
    assert "ok       MCP good: its program and files can be read inside" in clinic.lines
    assert "ok       MCP local: jobs may reach localhost:8080 (not tried)" in clinic.lines
    for name, words in {
        "script": f"cannot run {interpreter}. Add the directory",
        "missing": "/nowhere/server.js, which its command names, cannot be read",
        "unknown": "not a program on PATH",
        "relative": "not a program on PATH",
        "nothing": "neither a command nor a URL",
        "six": "Write 127.0.0.1 instead",
        "filled-in": "Write the host and port out",
    }.items():
        assert words in clinic.complaint(f"MCP {name}")


async def test_a_directory_that_cannot_be_made(clinic: Clinic):
    (clinic.root / "file").write_text("")
    assert await clinic.visit(WORKTREES_DIR=str(clinic.root / "file" / "below")) == 1
    assert "Not a directory" in clinic.complaint("WORKTREES_DIR")


async def test_a_store_that_is_no_database(clinic: Clinic):
    data = clinic.root / ".claude-code-orchestrator"
    data.mkdir()
    (data / "orchestrator.db").write_text("this is not a database, whatever its name says" * 99)
    assert await clinic.visit() == 1
    assert clinic.complaint("store")


async def test_temporal_does_not_answer(clinic: Clinic):
    [port] = free_ports(1)
    assert await clinic.visit(TEMPORAL_ADDRESS=f"127.0.0.1:{port}") == 1
    assert "correct TEMPORAL_ADDRESS" in clinic.complaint("Temporal")


async def test_the_publishable_key(clinic: Clinic):
    code = await clinic.visit(
        SUPABASE_URL="http://127.0.0.1:9", SUPABASE_SERVICE_ROLE_KEY="sb_publishable_x"
    )
    assert code == 1
    assert "the secret key" in clinic.complaint("store")


@pytest.mark.parametrize(
    ("script", "words"),
    [("#!/bin/sh\necho git version 2.20.1\n", "too old"), (None, "Install git")],
)
async def test_git_is_old_or_missing(clinic: Clinic, script: str | None, words: str):
    tools = clinic.root / "tools"
    tools.mkdir()
    if script is not None:
        (tools / "git").write_text(script)
        (tools / "git").chmod(0o755)
    assert await clinic.visit(PATH=f"{tools}") == 1
    assert words in clinic.complaint("git")
