"""A host with all its activities: real git and store, and a fake GitHub."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio.testing import ActivityEnvironment

from activities.claude import ClaudeActivities, ClaudeSetup
from activities.pull_requests import PullRequestActivities
from activities.withdrawals import WithdrawalActivities
from activities.workspaces import PrepareInput, WorkspaceActivities
from domain.configuration.isolation import Network
from domain.jobs import Job, JobStatus, JobType, Phase
from fakes.github.server import FakeGitHub
from host.retention import Retention
from host.salvage_records import SalvageRecords
from host.slots.credential_holds import Credential
from host.slots.leases import LeaseKey, Leases
from host.sweeper import Sweeper
from sandbox.gateway import Gateway
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.policy import Policy
from sandbox.supervision.limits import Limits
from scm.github_client import GitHubClient
from scm.github_pull_requests import GitHub
from settings import ClaudeSettings, GithubSettings
from store.protocol import Store
from tests.sandboxes import real_sandbox
from tests.unit.store.samples import World
from workspace.author import Identity
from workspace.git.credentials import GitCredentials, write_token_file
from workspace.git.runner import Git
from workspace.lifecycle.expiry import Expiry
from workspace.lifecycle.removal import Removal
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.gc import MirrorPacking
from workspace.mirrors.mirrors import Mirrors
from workspace.publishing import Publishing
from workspace.salvage.salvage import Salvage
from workspace.worktree.worktree import Worktree

T = TypeVar("T")

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
READ_ONLY = "ghp_" + "r9E8a7D6o5N4" * 3
OWNER, NAME = "acme", "shop"
FILES = {"README.md": "# Shop\n", "src/app.py": "print('hello')\n", ".gitignore": "*.log\n"}
CLAUDE = Identity("Claude", "claude@example.invalid")
MODEL = "claude-opus-5-5"
HOST = "mill-1"
GATEWAYS: list[Gateway] = []
"""Gateways of the test; a fixture closes them."""


def gateway(credentials: dict[str, str]) -> Gateway:
    """Return the gateway of a worker with these variables."""
    connection = ConnectionVariables(credentials)
    model = ModelUpstream.from_variables(credentials, connection)
    made = Gateway(Policy(Network.INTERNET), connection, model)
    GATEWAYS.append(made)
    return made


@dataclass(frozen=True)
class Granted:
    """A job with a lease on the host."""

    job: Job
    key: LeaseKey


class WorkerHost:
    """Every activity of a worker in one directory, composed as in `worker.py`.

    Args:
        directory: the worker's data directory.
        world: the store, with the client whose repository is the forge's acme/shop.
        forge: the fake GitHub.
        token: as configured; None for none.
        store: what the activities write to, if it is not the world's store.
        credentials: of Claude.
        host: its name.
    """

    def __init__(
        self,
        directory: Path,
        world: World,
        forge: FakeGitHub,
        token: str | None = TOKEN,
        store: Store | None = None,
        credentials: dict[str, str] | None = None,
        *,
        host: str = HOST,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.world, self.forge = directory, world, forge
        self.sessions = directory / "sessions"
        self.leases = Leases()
        used = store or world.store
        token_file = write_token_file(directory / "secrets", token) if token else None
        self.mirrors = Mirrors(
            directory / "mirrors",
            Git(
                os.environ["PATH"],
                containment=real_sandbox().containment,
                inside_path="/usr/local/bin:/usr/bin:/bin",
            ),
            GitCredentials(forge.url, token_file),
        )
        self.worktrees = Worktrees(directory / "worktrees", self.mirrors)
        self.publishing = Publishing(self.worktrees)
        self.salvage = Salvage(self.worktrees)
        self.removal = Removal(self.worktrees, self.salvage)
        self.code_host = GitHub(GitHubClient(lambda: token, forge.api_url))
        self.workspaces = WorkspaceActivities(
            used,
            self.leases,
            self.worktrees,
            self.publishing,
            self.removal,
            SalvageRecords(used, host),
            CLAUDE,
            real_sandbox(),
            has_token=token is not None,
        )
        self.pull_requests = PullRequestActivities(
            used,
            self.leases,
            self.publishing,
            self.code_host,
            GithubSettings.model_validate({"GITHUB_SERVER_URL": "https://github.example"}),
        )
        self.withdrawals = WithdrawalActivities(used, self.publishing, self.code_host)
        self.credential = Credential(used, "c0ffee")
        setup = self._setup(credentials or {})
        self.claude = ClaudeActivities(used, self.leases, self.worktrees, self.credential, setup)
        self.sweeper = Sweeper(
            used,
            self.leases,
            self.removal,
            SalvageRecords(used, host),
            Retention(used, Expiry(self.worktrees), timedelta(days=30)),
            MirrorPacking(self.worktrees),
            self.sessions,
        )

    def _setup(self, credentials: dict[str, str]) -> ClaudeSetup:
        return ClaudeSetup(
            claude=ClaudeSettings.model_validate(
                {"CLAUDE_MODEL": MODEL, "CLAUDE_MAX_TURNS": "20", **credentials}
            ),
            search_path="/usr/local/bin:/usr/bin:/bin",
            inside_path="/usr/local/bin:/usr/bin:/bin",
            sessions_dir=self.sessions,
            operator_home=None,
            data_id="data",
            boot_id="0123456789ab",
            silence=timedelta(minutes=5),
            identity=CLAUDE,
            sandbox=real_sandbox(),
            gateway=gateway(credentials),
            limits=Limits(),
        )

    async def run(self, activity: Callable[[Any], Awaitable[T]], request: object) -> T:
        """Run an activity as a worker does."""
        return await ActivityEnvironment().run(activity, request)

    async def grant(self, lease: int = 1, **overrides: Any) -> Granted:
        """Add a running job with a lease on this host."""
        values = {"status": JobStatus.RUNNING, "phase": Phase.PREPARING, "lease": lease}
        job = await self.world.add_job(**values | overrides)
        return Granted(job, self.take(job, lease))

    async def grant_task(self, **overrides: Any) -> Granted:
        return await self.grant(job_type=JobType.TASK, **overrides)

    def take(self, job: Job, lease: int) -> LeaseKey:
        """Take a lease on this host without recording it in the store."""
        key = LeaseKey(job.id, lease)
        self.leases.take(key)
        return key

    async def prepared(self, **overrides: Any) -> tuple[Granted, Worktree]:
        """Return a code job with its worktree."""
        granted = await self.grant(**overrides)
        return granted, await self.prepare(granted)

    async def prepare(self, granted: Granted) -> Worktree:
        await self.run(self.workspaces.prepare, PrepareInput(granted.key))
        return await self.worktree(granted.job)

    async def worktree(self, job: Job) -> Worktree:
        found = await self.worktrees.find(OWNER, NAME, job.id)
        assert found is not None
        return found

    async def messages(self, job: Job) -> list[str]:
        """Return the contents of the job's messages."""
        return [line.content for line in await self.world.transcript(job)]
