"""Builds the parts of the processes from the settings."""

from __future__ import annotations

from activities.claude import ClaudeSetup
from activities.pull_requests import PullRequestActivities
from activities.withdrawals import WithdrawalActivities
from agent.process.marker import Marker
from domain.configuration.isolation import Network, SandboxMode
from host.reports import ClaudeProbeSetup
from host.slots.leases import Leases
from sandbox.containment import Containment
from sandbox.gateway import PORT, Gateway
from sandbox.modes import Sandbox, inside_path
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.policy import Policy
from sandbox.supervision import cgroups
from sandbox.supervision.limits import Limits
from scm.github_client import GitHubClient
from scm.github_pull_requests import GitHub
from settings import Settings, SettingsError
from store.protocol import Store
from temporal.start_job import JobLimits
from workspace.author import Identity
from workspace.git.credentials import GitCredentials, write_token_file
from workspace.git.runner import Git
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirrors
from workspace.publishing import Publishing


def job_limits(settings: Settings) -> JobLimits:
    """Return the time limits of each workflow."""
    return JobLimits(
        settings.jobs.timeout,
        settings.jobs.task_idle_timeout,
        settings.jobs.turn_timeout,
        settings.jobs.queue_timeout,
    )


def sandbox(settings: Settings) -> Sandbox:
    """Return the sandbox of this host. Whether it works is checked later, by `require`."""
    mcp_config = [settings.claude.mcp_config] if settings.claude.mcp_config else []
    return Sandbox.ready(
        settings.sandbox.mode,
        settings.host.sandbox_dir,
        settings.host.search_path,
        [
            *settings.claude.certificate_files,
            *mcp_config,
            *settings.sandbox.read,
        ],
        has_own_network=settings.sandbox.network is not Network.HOST,
    )


def sandbox_search_path(settings: Settings) -> str:
    """Return PATH for Claude and its commands: the directories that they can see."""
    return inside_path(settings.sandbox.mode, settings.host.search_path, settings.sandbox.read)


def sandbox_limits(settings: Settings) -> Limits:
    """Return the limits of each job."""
    limits = settings.sandbox
    return Limits(limits.processes, limits.file_bytes, limits.memory_bytes, limits.free_bytes)


def gateway(settings: Settings) -> Gateway | None:
    """Return the gateway that leads Claude to the network; None with SANDBOX=off."""
    if settings.sandbox.mode is SandboxMode.OFF:
        return None
    variables = settings.claude.environment
    connection = ConnectionVariables(variables)
    model = None
    if settings.claude.can_hide_credential:
        model = ModelUpstream.from_variables(variables, connection)
    forwards, exempt = mcp_addresses(settings)
    policy = Policy(settings.sandbox.network, settings.sandbox.hosts, exempt)
    return Gateway(policy, connection, model, forwards)


def mcp_addresses(
    settings: Settings,
) -> tuple[dict[int, tuple[str, int]], frozenset[tuple[str, int]]]:
    """Return the addresses of the MCP servers with a URL, which every job reaches.

    Returns:
        Servers on this host by their port on 127.0.0.1 in the sandbox, and the hosts and ports of
        all other servers.

    Raises:
        SettingsError: a server uses the port that the proxy has in the sandbox.
    """
    forwards: dict[int, tuple[str, int]] = {}
    exempt = set()
    for server in settings.claude.mcp_servers:
        if server.address is None:
            continue
        if not server.is_on_loopback:
            exempt.add(server.address)
        elif server.address[1] == PORT:
            raise SettingsError(
                f"The MCP server {server.name} is on port {PORT} of this host, which the "
                "sandbox's proxy has inside. Let it listen on another port."
            )
        else:
            forwards[server.address[1]] = server.address
    return forwards, frozenset(exempt)


def mirrors(settings: Settings, containment: Containment | None = None) -> Mirrors:
    """Return the mirrors of this host, with the configured token."""
    token_file = None
    if settings.github.token is not None:
        token_file = write_token_file(
            settings.host.data_dir / "credentials", settings.github.token.get_secret_value()
        )
    credentials = GitCredentials(settings.github.server_url, token_file)
    return Mirrors(
        settings.host.repos_dir,
        Git(
            settings.host.search_path,
            containment=containment,
            inside_path=sandbox_search_path(settings),
        ),
        credentials,
    )


def worktrees(settings: Settings, containment: Containment | None = None) -> Worktrees:
    """Return the worktrees of this host; `containment` is for the commands that run in them."""
    return Worktrees(settings.host.worktrees_dir, mirrors(settings, containment))


def github_client(settings: Settings) -> GitHubClient:
    """Return the GitHub API with the configured token."""
    token = settings.github.token
    return GitHubClient(
        lambda: token.get_secret_value() if token else None, settings.github.api_url
    )


def pull_request_activities(
    settings: Settings, store: Store, leases: Leases, publishing: Publishing
) -> PullRequestActivities:
    """Return the activities that open pull requests."""
    code_host = GitHub(github_client(settings))
    return PullRequestActivities(store, leases, publishing, code_host, settings.github)


def withdrawal_activities(
    settings: Settings, store: Store, publishing: Publishing
) -> WithdrawalActivities:
    """Return the activities that undo what a cancelled job has published."""
    return WithdrawalActivities(store, publishing, GitHub(github_client(settings)))


def identity_of_commits(settings: Settings) -> Identity:
    """Return the author of the commits that the orchestrator makes."""
    return Identity(settings.git.author_name, settings.git.author_email)


def claude_setup(settings: Settings, boot_id: str, sandbox: Sandbox) -> ClaudeSetup:
    """Return how the jobs of this worker run the CLI."""
    return ClaudeSetup(
        claude=settings.claude,
        search_path=settings.host.search_path,
        inside_path=sandbox_search_path(settings),
        sessions_dir=settings.host.sessions_dir,
        operator_home=None if settings.claude.has_credentials else settings.host.home,
        data_id=settings.host.data_id,
        boot_id=boot_id,
        silence=settings.jobs.silence_timeout,
        identity=identity_of_commits(settings),
        sandbox=sandbox,
        gateway=gateway(settings),
        limits=sandbox_limits(settings).within(cgroups.prepare()),
    )


def claude_probe_setup(settings: Settings, boot_id: str, sandbox: Sandbox) -> ClaudeProbeSetup:
    """Return how to ask the CLI for its version and login. It runs as in a job of this worker."""
    own_login = not settings.claude.has_credentials
    home = settings.host.home if own_login else settings.host.sessions_dir / "probe"
    return ClaudeProbeSetup(
        claude_bin=settings.claude.bin,
        search_path=settings.host.search_path,
        credentials=settings.claude.environment,
        home=home,
        config_dir=None if own_login else home / ".claude",
        marker=Marker(settings.host.data_id, boot_id, "probe"),
        sandbox=sandbox,
    )
