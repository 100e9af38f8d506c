"""`orchestrator doctor`: each thing a newcomer gets wrong, found and named with its remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.forge import Forge
from demo.forge_access import TokenGrant
from demo.ports import free_ports
from doctor import examine
from domain.clock import utc_now
from domain.ids import new_id
from domain.repositories import Client, Repository
from settings import Settings
from store.sqlite import SqliteStore

GOOD, READING, NARROW = "good-token", "reading-token", "narrow-token"


@pytest.fixture(scope="module")
def forge_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tokens = {
        GOOD: TokenGrant("writer"),
        READING: TokenGrant("reader", permission="read", scopes=None),
        NARROW: TokenGrant("gist-only", scopes="gist"),
    }
    forge = Forge(tmp_path_factory.mktemp("forge"), tokens)
    forge.create_repository("acme", "site", files={"README.md": "hi\n"})
    with forge.serve() as url:
        yield url


class Clinic:
    """Runs the doctor with a healthy environment, less what a test spoils."""

    def __init__(self, root: Path, forge_url: str) -> None:
        self.root = root
        self.environment = {
            "PATH": os.environ["PATH"],
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
            line for line in self.lines if f" {subject}" in line and not line.startswith("ok")
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
    assert all(line.startswith("ok ") for line in clinic.lines)
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
    assert "set CLAUDE_BIN" in clinic.complaint("Claude")


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
