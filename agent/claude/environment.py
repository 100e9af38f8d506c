"""The environment Claude runs in: built from an allow-list, never copied from the worker's.

Everything here is readable by the commands Claude runs and by stdio MCP servers (measured).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from domain.claude_env import CLAUDE_SECRET_NAMES, HIDEABLE_NAMES, PASSED_NAMES
from sandbox.gateway import Passage

MARKER_NAME = "ORCHESTRATOR_RUN"

_FORBIDDEN_NAMES = frozenset({"GITHUB_TOKEN", "GH_TOKEN", "AGENT_API_SECRET"})
_FORBIDDEN_PREFIXES = ("SUPABASE_", "TEMPORAL_")

_FIXED = {
    # An overload is retried ten times by default, which takes 181 s; four take 9 s (measured).
    "CLAUDE_CODE_MAX_RETRIES": "4",
    # Memory is keyed by repository, so jobs would read each other's.
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    # A command left in the background would outlive the turn that started it.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    # `@/path` in a prompt attaches that file, past every tool restriction (measured).
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
    # Known failures at start are then told as a `result` line too.
    "CLAUDE_CODE_STARTUP_FAILURE_RESULTS": "1",
    # The transcript is on disk before the model is asked, so a session survives an early kill.
    "CLAUDE_CODE_EAGER_FLUSH": "1",
    # One hour: the default ends a tool call after 60 s (measured).
    "MCP_TOOL_TIMEOUT": "3600000",
    "GIT_TERMINAL_PROMPT": "0",
    # The sandbox has no /etc/gitconfig; where Landlock denies it, git would end there.
    "GIT_CONFIG_NOSYSTEM": "1",
}


_SECRETS_OF_CONTAINERS = frozenset({"AWS_CONTAINER_AUTHORIZATION_TOKEN"})
_CLIENT_CERTIFICATE_NAMES = frozenset(
    {
        "CLAUDE_CODE_CLIENT_CERT",
        "CLAUDE_CODE_CLIENT_KEY",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE",
    }
)


def behind_proxy(passed: Mapping[str, str], passage: Passage) -> dict[str, str]:
    """Return the variables for a process that reaches the network, or only Claude, by a proxy.

    Args:
        passed: taken from the worker's environment.
        passage: has the proxy.
    """
    variables = dict(passed)
    if passage.hides_credential:
        # Those of clouds too, which the operator may have set for other programs.
        for name in CLAUDE_SECRET_NAMES | _CLIENT_CERTIFICATE_NAMES | _SECRETS_OF_CONTAINERS:
            variables.pop(name, None)
        variables |= {name: passage.placeholder for name in HIDEABLE_NAMES if name in passed}
        variables["ANTHROPIC_BASE_URL"] = f"http://127.0.0.1:{passage.port}"
    if passage.is_inside:
        for name in ("ALL_PROXY", "all_proxy"):
            variables.pop(name, None)
        variables |= passage.variables()
    return variables


@dataclass(frozen=True, slots=True)
class Marker:
    """Which run of which worker life a process belongs to; inherited by all it starts."""

    data_id: str
    boot_id: str
    job_id: str

    def __str__(self) -> str:
        return f"{self.data_id}/{self.boot_id}/{self.job_id}"

    @classmethod
    def parse(cls, value: str) -> Marker | None:
        """Read what `str` wrote; None when it is something else."""
        parts = value.split("/")
        return cls(*parts) if len(parts) == 3 and all(parts) else None

    def __post_init__(self) -> None:
        if any(not part or "/" in part for part in (self.data_id, self.boot_id, self.job_id)):
            raise ValueError("The parts of a run's marker must not be empty or contain a slash.")


def child_environment(
    passed: Mapping[str, str],
    *,
    search_path: str,
    home: Path,
    config_dir: Path | None,
    marker: Marker,
    identity: Mapping[str, str],
    temporary: Path | None = None,
) -> dict[str, str]:
    """Return the whole environment of one Claude process.

    Args:
        passed: taken from the worker's environment; names of `PASSED_NAMES` only.
        search_path: PATH for Claude and the commands it runs.
        home: HOME; its git and shell configuration is the only one the commands see.
        config_dir: CLAUDE_CONFIG_DIR, or None for the operator's own under `home`.
        marker: finds the processes of the run later, see `agent.process.orphans`.
        identity: GIT_AUTHOR_NAME and its kin.
        temporary: TMPDIR, so that what the CLI and its commands leave there can be removed with
            the job; made by the CLI when it is missing (measured).

    Raises:
        ValueError: a name that must not reach Claude was passed; this is a mistake in the code.
    """
    environment = {
        "LANG": "C.UTF-8",
        **_only(passed, PASSED_NAMES),
        **_only(identity, _IDENTITY_NAMES),
        **_FIXED,
        "PATH": search_path,
        "HOME": str(home),
        MARKER_NAME: str(marker),
    }
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    if config_dir is not None:
        environment["CLAUDE_CONFIG_DIR"] = str(config_dir)
    if os.geteuid() == 0:
        # As root the CLI refuses bypassPermissions without it (measured).
        environment["IS_SANDBOX"] = "1"
    return environment


_IDENTITY_NAMES = frozenset(
    {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"}
)


def config_dir_of(environment: Mapping[str, str]) -> Path:
    """Where the CLI keeps sessions and settings in this environment."""
    configured = environment.get("CLAUDE_CONFIG_DIR")
    return Path(configured) if configured else Path(environment["HOME"]) / ".claude"


def has_own_config_dir(environment: Mapping[str, str]) -> bool:
    """Return whether the configuration directory is the job's own, and not the operator's."""
    return "CLAUDE_CONFIG_DIR" in environment


def _only(values: Mapping[str, str], allowed: frozenset[str]) -> dict[str, str]:
    for name in values:
        if name in _FORBIDDEN_NAMES or name.startswith(_FORBIDDEN_PREFIXES):
            raise ValueError(f"{name} is a secret of the orchestrator and must not reach Claude.")
        if name not in allowed:
            raise ValueError(f"{name} is not on the list of names that may reach Claude.")
    return dict(values)
