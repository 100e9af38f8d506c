"""The command line of one Claude process. The prompt never stands in it; it goes by stdin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from domain.jobs import JobType

CODE_TOOLS = ("Bash", "Edit", "Write", "Read", "Glob", "Grep", "NotebookEdit", "TodoWrite")
"""What a code job works with; a name this CLI or model does not have is ignored (measured)."""

READING_TOOLS = ("Read", "Grep", "Glob")
"""What every task job has; `--restricted` keeps them inside the worktree."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Launch:
    """What one process is to do.

    `session_id` is a UUID; `resume` continues it, else it must be new to the config directory.
    `system_prompt` is added to Claude Code's own, and is fixed at a session's first use: the CLI
    keeps the old text when a resumed session brings another (read in its help).
    `max_turns` bounds the model calls of each turn; `max_budget_usd`, above 0, what this process
    may spend over all its turns, not counting what a resumed session spent before (measured): see
    `agent.claude.budget`.
    `mcp_servers` names the servers of `mcp_config` whose tools a task job may call;
    `task_tools` are further built-in tools of a task job, such as WebSearch.
    """

    job_type: JobType
    session_id: str
    resume: bool
    model: str | None
    max_turns: int | None
    max_budget_usd: float | None
    system_prompt: str
    mcp_config: Path | None
    mcp_servers: tuple[str, ...]
    task_tools: tuple[str, ...]


def command_line(
    executable: Path, launch: Launch, system_prompt_file: Path | None = None
) -> list[str]:
    """Return the argument list.

    Args:
        executable: the CLI.
        launch: what to run.
        system_prompt_file: holds `launch.system_prompt`, so that its length is not limited to the
            128 KiB of one argument and it does not show in the process list.
    """
    return [
        str(executable),
        "--print",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--strict-mcp-config",
        "--disable-slash-commands",
        *_session(launch),
        *_permissions(launch),
        *_limits(launch),
        *_system_prompt(launch, system_prompt_file),
    ]


def _session(launch: Launch) -> list[str]:
    return ["--resume" if launch.resume else "--session-id", launch.session_id]


def _permissions(launch: Launch) -> list[str]:
    servers = [f"mcp__{_checked(name)}" for name in launch.mcp_servers]
    mcp = ["--mcp-config", str(launch.mcp_config)] if launch.mcp_config else []
    if launch.job_type is JobType.CODE:
        mode = ["--permission-mode", "bypassPermissions", "--setting-sources", "user"]
        return [*mode, "--tools", ",".join(CODE_TOOLS), *mcp]
    further = [_checked(name) for name in launch.task_tools]
    mode = ["--restricted", "--permission-mode", "dontAsk"]
    tools = ["--tools", ",".join([*READING_TOOLS, *further])]
    # dontAsk refuses what is not allowed by name; reading inside the worktree needs no name.
    allowed = [*further, *servers]
    return [*mode, *tools, *(["--allowedTools", ",".join(allowed)] if allowed else []), *mcp]


def _checked(name: str) -> str:
    """A name becomes part of a comma-separated permission rule, so it must be a plain word."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a tool or MCP server name: use letters, digits, _ and -."
        )
    return name


def _limits(launch: Launch) -> list[str]:
    limits = {
        "--model": launch.model,
        "--max-turns": launch.max_turns,
        "--max-budget-usd": launch.max_budget_usd,
    }
    return [
        part for flag, value in limits.items() if value is not None for part in (flag, str(value))
    ]


def _system_prompt(launch: Launch, file: Path | None) -> list[str]:
    if not launch.system_prompt:
        return []
    if file is not None:
        return ["--append-system-prompt-file", str(file)]
    return ["--append-system-prompt", launch.system_prompt]
