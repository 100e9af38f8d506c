"""The environment of Claude: built from an allow-list, never copied from the worker.

The commands that Claude runs and stdio MCP servers can read all of it (measured).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agent.process.marker import MARKER_NAME, Marker
from domain.configuration.claude_env import CLAUDE_SECRET_NAMES, HIDEABLE_NAMES, PASSED_NAMES
from sandbox.gateway import Passage

_FORBIDDEN_NAMES = frozenset({"GITHUB_TOKEN", "GH_TOKEN", "AGENT_API_SECRET"})
_FORBIDDEN_PREFIXES = ("SUPABASE_", "TEMPORAL_")

_FIXED = {
    # The default of ten retries takes 181 s during an overload; four take 9 s (measured).
    "CLAUDE_CODE_MAX_RETRIES": "4",
    # Memory is stored per repository, so jobs would read each other's.
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    # A background command would outlive its turn.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    # `@/path` in a prompt attaches that file and bypasses every tool restriction (measured).
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
    # Reports known failures at startup as a `result` line too.
    "CLAUDE_CODE_STARTUP_FAILURE_RESULTS": "1",
    # Writes the session file before the model call, so the session survives an early kill.
    "CLAUDE_CODE_EAGER_FLUSH": "1",
    # One hour: the default ends a tool call after 60 s (measured).
    "MCP_TOOL_TIMEOUT": "3600000",
    "GIT_TERMINAL_PROMPT": "0",
    # The sandbox has no /etc/gitconfig; git fails if Landlock denies access to it.
    "GIT_CONFIG_NOSYSTEM": "1",
}


_CONTAINER_SECRET_NAMES = frozenset({"AWS_CONTAINER_AUTHORIZATION_TOKEN"})
_CLIENT_CERTIFICATE_NAMES = frozenset(
    {
        "CLAUDE_CODE_CLIENT_CERT",
        "CLAUDE_CODE_CLIENT_KEY",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE",
    }
)


def behind_proxy(passed: Mapping[str, str], passage: Passage) -> dict[str, str]:
    """Return the variables for a process that reaches the network or the model through a proxy.

    Args:
        passed: from the worker's environment.
        passage: the proxy.
    """
    variables = dict(passed)
    if passage.hides_credential:
        # Cloud credentials too: the operator may have set them for other programs.
        for name in CLAUDE_SECRET_NAMES | _CLIENT_CERTIFICATE_NAMES | _CONTAINER_SECRET_NAMES:
            variables.pop(name, None)
        variables |= {name: passage.placeholder for name in HIDEABLE_NAMES if name in passed}
        variables["ANTHROPIC_BASE_URL"] = f"http://127.0.0.1:{passage.port}"
    if passage.is_inside:
        for name in ("ALL_PROXY", "all_proxy"):
            variables.pop(name, None)
        variables |= passage.variables()
    return variables


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
    """Return the complete environment of a Claude process.

    Args:
        passed: from the worker's environment; only names of `PASSED_NAMES`.
        search_path: PATH of Claude and its commands.
        home: HOME; commands see only the git and shell configuration in it.
        config_dir: CLAUDE_CONFIG_DIR; None for the operator's configuration in `home`.
        marker: identifies the processes of the run, see `agent.process.orphans`.
        identity: GIT_AUTHOR_NAME and the related variables.
        temporary: TMPDIR; the CLI creates it (measured). It is deleted with the job.

    Raises:
        ValueError: a name that must not reach Claude was passed; this is a bug in the caller.
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
        # As root the CLI rejects bypassPermissions without this variable (measured).
        environment["IS_SANDBOX"] = "1"
    return environment


_IDENTITY_NAMES = frozenset(
    {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"}
)


def config_dir_of(environment: Mapping[str, str]) -> Path:
    """Return the CLI's directory for sessions and settings."""
    configured = environment.get("CLAUDE_CONFIG_DIR")
    return Path(configured) if configured else Path(environment["HOME"]) / ".claude"


def has_own_config_dir(environment: Mapping[str, str]) -> bool:
    """Return whether the configuration directory belongs to the job, not to the operator."""
    return "CLAUDE_CONFIG_DIR" in environment


def _only(values: Mapping[str, str], allowed: frozenset[str]) -> dict[str, str]:
    for name in values:
        if name in _FORBIDDEN_NAMES or name.startswith(_FORBIDDEN_PREFIXES):
            raise ValueError(f"{name} is a secret of the orchestrator and must not reach Claude.")
        if name not in allowed:
            raise ValueError(f"{name} is not on the list of names that may reach Claude.")
    return dict(values)
