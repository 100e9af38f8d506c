"""A fake GitHub with one repository, and a host with all parts of `workspace/`."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from domain.configuration.isolation import SandboxMode
from fakes.github.server import FakeGitHub, TokenGrant
from sandbox.modes import inside_path
from tests.integration.workspace import git_lfs
from tests.sandboxes import real_sandbox
from workspace.author import Identity
from workspace.git import locks
from workspace.git.credentials import GitCredentials, write_token_file
from workspace.git.runner import Git
from workspace.lifecycle.expiry import Expiry
from workspace.lifecycle.removal import Removal
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirrors
from workspace.publishing import Publishing
from workspace.salvage.salvage import Salvage
from workspace.worktree.worktree import Worktree

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
READ_ONLY = "ghp_" + "r9E8a7D6o5N4" * 3
OWNER, NAME = "Acme", "Shop"
REGISTERED = [f"{OWNER}/{name}" for name in ("Part", "Bolt", "Other")]
"""The other repositories that the client has registered."""
CLAUDE = Identity("Claude", "claude@example.invalid")
FILES = {"README.md": "# Shop\n", "src/app.py": "print('hello')\n", ".gitignore": "*.log\n"}


class Host:
    """The parts of `workspace/` that a worker has, below one directory."""

    def __init__(
        self,
        directory: Path,
        github: FakeGitHub,
        token: str | None = TOKEN,
        search_path: str = os.environ["PATH"],
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.github = github
        self.token_file = write_token_file(directory / "secrets", token) if token else None
        visible = (git_lfs.DIRECTORY,)
        self.git = Git(
            search_path,
            containment=real_sandbox(*visible).containment,
            inside_path=inside_path(SandboxMode.ON, search_path, visible),
        )
        self.credentials = GitCredentials(github.url, self.token_file)
        self.mirrors = Mirrors(directory / "mirrors", self.git, self.credentials)
        self.worktrees = Worktrees(directory / "worktrees", self.mirrors)
        self.publishing = Publishing(self.worktrees)
        self.salvage = Salvage(self.worktrees)
        self.removal = Removal(self.worktrees, self.salvage)
        self.expiry = Expiry(self.worktrees)

    async def start(
        self, job_id: str, branch: str | None = None, base: str | None = "main"
    ) -> Worktree:
        """Fetch the mirror and create the worktree of a job."""
        await self.mirrors.fetch(OWNER, NAME)
        return await self.worktrees.create_for_branch(
            OWNER, NAME, job_id, branch or f"feature/{job_id}", base, REGISTERED
        )

    async def publish(self, worktree: Worktree, message: str = "Do it") -> str:
        """Commit and push all changes in a worktree."""
        assert worktree.branch is not None
        sha = await self.commit(worktree, message)
        await self.publishing.push(OWNER, NAME, sha, worktree.branch, worktree.expected_remote)
        return sha

    async def commit(self, worktree: Worktree, message: str = "Do it") -> str:
        """Commit all changes in a worktree."""
        await self.publishing.commit_all(worktree, message, CLAUDE)
        return (await self.publishing.head(worktree)).sha

    async def patch(self, job_id: str = "job") -> str | None:
        """Return the kept work of a job as a patch."""
        kept = await self.salvage.kept(OWNER, NAME, job_id)
        return None if kept is None else kept.patch

    def remote(self) -> dict[str, str]:
        return self.github.branches(OWNER, NAME)

    def remote_log(self, branch: str) -> list[str]:
        return [entry.subject for entry in self.github.log(OWNER, NAME, branch)]

    @property
    def mirror_path(self) -> Path:
        return self.mirrors.path(OWNER, NAME)


@pytest.fixture
def github(tmp_path: Path) -> Iterator[FakeGitHub]:
    grants = {TOKEN: TokenGrant("bot"), READ_ONLY: TokenGrant("reader", "read")}
    server = FakeGitHub(tmp_path / "github", grants)
    with server.serve():
        server.create_repository(OWNER, NAME, FILES)
        yield server


@pytest.fixture
def host(github: FakeGitHub, tmp_path: Path) -> Host:
    return Host(tmp_path / "data", github)


@pytest.fixture
def failed_attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors of this process's failed attempts to take a lock."""
    attempts: list[int] = []
    lock = locks._locks

    def recorded(descriptor: int) -> bool:
        if lock(descriptor):
            return True
        attempts.append(descriptor)
        return False

    monkeypatch.setattr(locks, "_locks", recorded)
    return attempts


async def is_kept_waiting(task: asyncio.Task[Any], failed_attempts: list[int]) -> bool:
    """Return whether a task is still running after three more failed attempts to take a lock."""
    before = len(failed_attempts)
    await until(lambda: task.done() or len(failed_attempts) >= before + 3)
    return not task.done()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, for at most 20 seconds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event to set
            await asyncio.sleep(0.01)


def as_claude(directory: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
    """Run git as Claude does: in the current directory, with the repository's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), **CLAUDE.environment()}
    finished = subprocess.run(
        ("git", *arguments),
        cwd=directory,
        env={**environment, **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()
