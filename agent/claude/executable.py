"""Find the Claude Code executable, and ask it for its version and login."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import subprocesses

LoginType = Literal["api_key", "oauth_token", "subscription", "cloud"]

PROBE_SECONDS = 10.0
"""Timeout of each command; `--version` takes 20 ms and `auth status` 0.5 s (measured)."""

_MAX_OUTPUT_BYTES = 64 * 1024
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_LOGIN_TYPES: dict[str, LoginType] = {
    "api_key": "api_key",
    "api_key_helper": "api_key",
    "oauth_token": "oauth_token",
    "claude.ai": "subscription",
    "third_party": "cloud",
}


@dataclass(frozen=True, slots=True)
class ClaudeProbe:
    """The version and login of an executable; `version` is None if it does not run.

    `authenticated` means that a credential is present: the CLI does not verify it (measured).
    """

    version: str | None
    authenticated: bool
    login_type: LoginType | None


def find_executable(claude_bin: str | None, search_path: str) -> Path:
    """Return the absolute path of the CLI.

    The first of: `claude_bin` (a path, or a name on `search_path`), `claude` on `search_path`, the
    executable in the `claude-agent-sdk` wheel. There is no fallback for an invalid `claude_bin`.

    Raises:
        JobFailure: CLAUDE_NOT_FOUND.
    """
    if claude_bin:
        configured = shutil.which(claude_bin, path=search_path)
        if configured is None:
            message = f"CLAUDE_BIN names {claude_bin!r}, which is not an executable. Correct it."
            raise JobFailure(FailureCode.CLAUDE_NOT_FOUND, message)
        return Path(configured).absolute()
    on_path = shutil.which("claude", path=search_path)
    bundled = Path(on_path) if on_path else _bundled_executable()
    if bundled is None:
        raise JobFailure(FailureCode.CLAUDE_NOT_FOUND)
    return bundled.absolute()


def _bundled_executable() -> Path | None:
    spec = importlib.util.find_spec("claude_agent_sdk")
    for location in (spec.submodule_search_locations or []) if spec else []:
        candidate = Path(location) / "_bundled" / "claude"
        if os.access(candidate, os.X_OK):
            return candidate
    return None


async def probe(
    executable: Path,
    environment: Mapping[str, str],
    around: Callable[[Sequence[str]], list[str]] = list,
) -> ClaudeProbe:
    """Ask the CLI for its version and login; a CLI that fails or hangs is not an error.

    Args:
        executable: the CLI.
        environment: the complete environment.
        around: returns the command line that runs a command in the sandbox.
    """
    output = await _output_of(around([str(executable), "--version"]), environment)
    version = _VERSION.search(output)
    if version is None:
        return ClaudeProbe(version=None, authenticated=False, login_type=None)
    logged_in, login_type = _parse_auth(
        await _output_of(around([str(executable), "auth", "status"]), environment)
    )
    return ClaudeProbe(version.group(), logged_in, login_type if logged_in else None)


def _parse_auth(output: str) -> tuple[bool, LoginType | None]:
    try:
        status = json.loads(output)
    except ValueError:
        return False, None
    if not isinstance(status, dict):
        return False, None
    return status.get("loggedIn") is True, _LOGIN_TYPES.get(str(status.get("authMethod")))


async def _output_of(command: list[str], environment: Mapping[str, str]) -> str:
    try:
        ended = await subprocesses.run(
            command,
            environment=environment,
            directory=None,
            stdin=None,
            timeout=PROBE_SECONDS,
            max_output=_MAX_OUTPUT_BYTES,
        )
    except (OSError, TimeoutError):
        return ""
    return ended.stdout.decode(errors="replace")
