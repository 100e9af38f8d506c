"""Settings of Claude."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from domain.configuration.claude_env import (
    CERTIFICATE_NAMES,
    LOGIN_REPLACING_NAMES,
    PASSED_NAMES,
    can_hide_credential,
)
from domain.configuration.mcp_servers import McpServer, read_servers
from domain.jobs import MAX_TURNS
from settings.fields import (
    Group,
    OptionalText,
    absolute_path,
    names,
    parsed,
    secret_text,
    setting,
    whole_number,
)

_TASK_TOOLS = frozenset({"WebSearch", "WebFetch"})


def _dollars(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) <= 0:
        raise ValueError(
            f"is {text!r}. Set it to an amount of US dollars above 0, such as 5 or 0.50."
        )
    return float(text)


def _task_tools(text: str) -> tuple[str, ...]:
    tools = names(text)
    unknown = sorted(set(tools) - _TASK_TOOLS)
    if unknown:
        raise ValueError(f"has {', '.join(unknown)}. Only WebSearch and WebFetch can be added.")
    return tools


@dataclass(frozen=True, slots=True)
class McpConfig:
    """The file of MCP_CONFIG, and its servers."""

    path: Path
    servers: tuple[McpServer, ...]

    @classmethod
    def read(cls, text: str) -> McpConfig:
        """Read the file.

        Raises:
            ValueError: there is no such file, or it has another form.
        """
        path = absolute_path(text)
        if not path.is_file():
            raise ValueError(f"names {str(path)!r}, which is not a file.")
        try:
            return cls(path, read_servers(path.read_text("utf-8")))
        except (OSError, ValueError):
            raise ValueError(
                f'names {str(path)!r}, which does not have the form {{"mcpServers": '
                "{NAME: {...}}}."
            ) from None


class ClaudeSettings(Group):
    """The CLI, defaults of its runs, its MCP servers, and the variables that are passed to it."""

    title = "Claude"

    bin: OptionalText = setting(
        "CLAUDE_BIN",
        None,
        "Path of the Claude CLI",
        shown="`claude` on `PATH`, otherwise the installed one",
    )
    model: OptionalText = setting("CLAUDE_MODEL", None, "Model", shown="Claude Code's default")
    max_turns: Annotated[int | None, whole_number(1, MAX_TURNS)] = setting(
        "CLAUDE_MAX_TURNS", None, "Maximum of model calls in one run", shown="unlimited"
    )
    max_budget_usd: Annotated[float | None, parsed(_dollars)] = setting(
        "CLAUDE_MAX_BUDGET_USD",
        None,
        "Maximum cost of all runs of a job together",
        shown="unlimited",
    )
    mcp: Annotated[McpConfig | None, parsed(McpConfig.read)] = setting(
        "MCP_CONFIG",
        None,
        "File in Claude's `mcp.json` format; its servers are offered to every job, and run in "
        "its sandbox",
    )
    task_tools: Annotated[tuple[str, ...], parsed(_task_tools)] = setting(
        "TASK_TOOLS", "", "Further tools of task jobs: `WebSearch`, `WebFetch`"
    )
    variables: dict[str, Annotated[SecretStr, BeforeValidator(secret_text)]] = Field(default={})
    """Claude's own variables: credentials, proxy, certificates and locale."""

    @model_validator(mode="before")
    @classmethod
    def _select_variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        passed = {name: variables[name] for name in sorted(PASSED_NAMES) if name in variables}
        return {**variables, "variables": passed}

    @property
    def environment(self) -> dict[str, str]:
        """The variables with their values, secrets included. Only Claude gets these."""
        return {name: value.get_secret_value() for name, value in self.variables.items()}

    @property
    def mcp_config(self) -> Path | None:
        """The file of MCP_CONFIG."""
        return self.mcp.path if self.mcp else None

    @property
    def mcp_servers(self) -> tuple[McpServer, ...]:
        """The servers of MCP_CONFIG."""
        return self.mcp.servers if self.mcp else ()

    @property
    def mcp_files(self) -> tuple[Path, ...]:
        """MCP_CONFIG, and the paths that the commands of its servers name."""
        if self.mcp is None:
            return ()
        return (self.mcp.path, *(path for server in self.mcp.servers for path in server.files))

    @property
    def certificate_files(self) -> tuple[Path, ...]:
        """Certificates that the operator has set for Claude and its commands."""
        names_set = sorted(CERTIFICATE_NAMES & self.variables.keys())
        return tuple(Path(self.variables[name].get_secret_value()) for name in names_set)

    @property
    def has_credentials(self) -> bool:
        """Whether variables hold a credential. Otherwise Claude uses the operator's login."""
        return not LOGIN_REPLACING_NAMES.isdisjoint(self.variables)

    @property
    def can_hide_credential(self) -> bool:
        """Whether the proxy can add the credential, so that jobs do not have it."""
        return can_hide_credential(self.environment)

    @property
    def is_subscription(self) -> bool:
        """Whether a subscription pays for Claude, so that the costs it reports are estimates.

        API keys, tokens of proxies and clouds are billed by use, and Claude prefers them.
        """
        billed = LOGIN_REPLACING_NAMES - {"CLAUDE_CODE_OAUTH_TOKEN"}
        return billed.isdisjoint(self.variables)
