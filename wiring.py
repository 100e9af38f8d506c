"""The parts of the processes, made as the settings say."""

from __future__ import annotations

from activities.claude import ClaudeSetup
from activities.pull_requests import PullRequestActivities, PullRequestDefaults
from activities.withdrawals import WithdrawalActivities
from agent.claude.environment import Marker, can_hide_credential
from host.reports import ClaudeProbeSetup
from host.slots.leases import Leases
from sandbox.containment import Containment
from sandbox.gateway import PORT, Gateway
from sandbox.modes import Sandbox, SandboxMode
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.policy import Network, Policy
from sandbox.supervision import cgroups
from scm.github_client import GithubAccess
from settings import Settings, SettingsError
from store.protocol import Store
from temporal.start_job import JobLimits
from workspace.git.author import Identity
from workspace.git.credentials import GitCredentials, write_token_file
from workspace.git.runner import Git
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirrors
from workspace.publishing import Publishing


def job_limits(settings: Settings) -> JobLimits:
    """Return the time limits that workflows are started with."""
    return JobLimits(
        settings.job_timeout,
        settings.task_idle_timeout,
        settings.turn_timeout,
        settings.queue_timeout,
    )


def sandbox(settings: Settings) -> Sandbox:
    """Return the sandbox of this host, made ready; it may prove not to work."""
    mcp_config = [settings.mcp_config] if settings.mcp_config else []
    return Sandbox.ready(
        settings.sandbox,
        settings.sandbox_dir,
        settings.search_path,
        [
            *settings.certificate_files,
            *mcp_config,
            *settings.sandbox_read,
        ],
        has_own_network=settings.sandbox_network is not Network.HOST,
    )


def gateway(settings: Settings) -> Gateway | None:
    """Return the way of Claude to the network; None with SANDBOX=off, where it is the host's."""
    if settings.sandbox is SandboxMode.OFF:
        return None
    variables = settings.claude_environment
    connection = ConnectionVariables(variables)
    model = None
    if can_hide_credential(variables):
        model = ModelUpstream.from_variables(variables, connection)
    forwards, exempt = mcp_addresses(settings)
    policy = Policy(settings.sandbox_network, settings.sandbox_hosts, exempt)
    return Gateway(policy, connection, model, forwards)


def mcp_addresses(
    settings: Settings,
) -> tuple[dict[int, tuple[str, int]], frozenset[tuple[str, int]]]:
    """Return how jobs reach the MCP servers that have a URL, whatever else they may reach.

    Returns:
        Those on this host, by the port of 127.0.0.1 inside, and the hosts and ports of the others.

    Raises:
        SettingsError: one is on the port that the proxy has inside.
    """
    forwards: dict[int, tuple[str, int]] = {}
    exempt = set()
    for server in settings.mcp_servers:
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
    """Return this machine's copies of the repositories, with the configured token."""
    token_file = None
    if settings.github_token is not None:
        token_file = write_token_file(
            settings.data_dir / "credentials", settings.github_token.reveal()
        )
    credentials = GitCredentials(settings.github_server_url, token_file)
    return Mirrors(
        settings.repos_dir,
        Git(
            settings.search_path, containment=containment, inside_path=settings.sandbox_search_path
        ),
        credentials,
    )


def worktrees(settings: Settings, containment: Containment | None = None) -> Worktrees:
    """Return this host's worktrees; `containment` is for the commands that work on them."""
    return Worktrees(settings.worktrees_dir, mirrors(settings, containment))


def github_access(settings: Settings) -> GithubAccess:
    """Return the GitHub API with the configured token."""
    token = settings.github_token
    return GithubAccess(lambda: token.reveal() if token else None, settings.github_api_url)


def pull_request_activities(
    settings: Settings, store: Store, leases: Leases, publishing: Publishing
) -> PullRequestActivities:
    """Return the activities that open pull requests."""
    defaults = PullRequestDefaults(
        settings.pull_request_draft,
        settings.pull_request_labels,
        settings.pull_request_reviewers,
    )
    access = github_access(settings)
    return PullRequestActivities(
        store, leases, publishing, access, settings.github_server_url, defaults
    )


def withdrawal_activities(
    settings: Settings, store: Store, publishing: Publishing
) -> WithdrawalActivities:
    """Return the activities that undo what a cancelled job has published."""
    return WithdrawalActivities(store, publishing, github_access(settings))


def identity_of_commits(settings: Settings) -> Identity:
    """Return who commits what jobs leave uncommitted."""
    return Identity(settings.git_author_name, settings.git_author_email)


def claude_setup(settings: Settings, boot_id: str, sandbox: Sandbox) -> ClaudeSetup:
    """Return how jobs of this worker run the CLI."""
    return ClaudeSetup(
        claude_bin=settings.claude_bin,
        search_path=settings.search_path,
        inside_path=settings.sandbox_search_path,
        credentials=settings.claude_environment,
        sessions_dir=settings.sessions_dir,
        operator_home=None if settings.has_claude_credentials else settings.operator_home,
        data_id=settings.data_id,
        boot_id=boot_id,
        model=settings.claude_model,
        max_turns=settings.claude_max_turns,
        max_budget_usd=settings.claude_max_budget_usd,
        silence=settings.silence_timeout,
        is_subscription=settings.is_subscription,
        mcp_config=settings.mcp_config,
        mcp_servers=tuple(server.name for server in settings.mcp_servers),
        mcp_files=settings.mcp_files,
        task_tools=settings.task_tools,
        identity=identity_of_commits(settings),
        sandbox=sandbox,
        gateway=gateway(settings),
        limits=settings.sandbox_limits.within(cgroups.prepare()),
    )


def claude_probe_setup(settings: Settings, boot_id: str, sandbox: Sandbox) -> ClaudeProbeSetup:
    """Return how to ask the CLI for its version and login, as a job of this worker would run it."""
    own_login = not settings.has_claude_credentials
    home = settings.operator_home if own_login else settings.sessions_dir / "probe"
    return ClaudeProbeSetup(
        claude_bin=settings.claude_bin,
        search_path=settings.search_path,
        credentials=settings.claude_environment,
        home=home,
        config_dir=None if own_login else home / ".claude",
        marker=Marker(settings.data_id, boot_id, "probe"),
        sandbox=sandbox,
    )
