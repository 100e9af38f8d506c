"""The command line of a Claude process. The prompt is never part of it; it goes through stdin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from domain.jobs import JobType

CODE_TOOLS = ("Bash", "Edit", "Write", "Read", "Glob", "Grep", "NotebookEdit", "TodoWrite")
"""Tools of a code job; the CLI ignores a name that it or the model does not have (measured)."""

READING_TOOLS = ("Read", "Grep", "Glob")
"""Tools of every task job; `--restricted` keeps them inside the worktree."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters of one process.

    `session_id` is a UUID. With `resume` the session continues; otherwise the id must be new to the
    config directory.

    `system_prompt` is appended to Claude Code's own. The CLI keeps the text of a session's first
    process, also if a later process passes another text (documented in its help).

    `max_turns` limits the model calls of each turn. `max_budget_usd`, above 0, limits the cost of
    this process over all its turns; see `agent.claude.budget`.

    `mcp_servers` names the servers of `mcp_config` whose tools a task job may call.
    `task_tools` are additional built-in tools of a task job, such as WebSearch.
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
        launch: the parameters.
        system_prompt_file: contains `launch.system_prompt`. A file is not limited to the 128 KiB of
            one argument, and its text is not in the process list.
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
    additional = [_checked(name) for name in launch.task_tools]
    mode = ["--restricted", "--permission-mode", "dontAsk"]
    tools = ["--tools", ",".join([*READING_TOOLS, *additional])]
    # dontAsk refuses every tool that is not listed, except reading inside the worktree.
    allowed = [*additional, *servers]
    return [*mode, *tools, *(["--allowedTools", ",".join(allowed)] if allowed else []), *mcp]


def _checked(name: str) -> str:
    # The name becomes part of a comma-separated permission rule.
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
