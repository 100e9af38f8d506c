"""Where the Claude Code executable is, and whether it is logged in."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domain.errors import JobFailure
from domain.failures import FailureCode

LoginType = Literal["api_key", "oauth_token", "subscription", "cloud"]

PROBE_SECONDS = 10.0
"""Limit of each of the two commands; `--version` takes 20 ms and `auth status` 0.5 s (measured)."""

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
    """What the executable says of itself; `version` is None when it does not run.

    `authenticated` means that a credential is present: the CLI does not try it (measured).
    """

    version: str | None
    authenticated: bool
    login_type: LoginType | None


def find_executable(claude_bin: str | None, search_path: str) -> Path:
    """Return the absolute path of the CLI.

    In this order: `claude_bin` (a path, or a name on `search_path`), `claude` on `search_path`,
    the one inside the `claude-agent-sdk` wheel. A `claude_bin` that is wrong is never replaced.

    Raises:
        JobFailure: CLAUDE_NOT_FOUND.
    """
    if claude_bin:
        found = shutil.which(claude_bin, path=search_path)
        if found is None:
            message = f"CLAUDE_BIN names {claude_bin!r}, which is not an executable. Correct it."
            raise JobFailure(FailureCode.CLAUDE_NOT_FOUND, message)
        return Path(found).absolute()
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
    """Ask the CLI for its version and login; never raises for a CLI that fails or hangs.

    Args:
        executable: of the CLI.
        environment: the whole environment.
        around: returns the command line that runs a command contained.
    """
    said = await _output_of(around([str(executable), "--version"]), environment)
    version = _VERSION.search(said)
    if version is None:
        return ClaudeProbe(version=None, authenticated=False, login_type=None)
    logged_in, login_type = _read_auth(
        await _output_of(around([str(executable), "auth", "status"]), environment)
    )
    return ClaudeProbe(version.group(), logged_in, login_type if logged_in else None)


def _read_auth(said: str) -> tuple[bool, LoginType | None]:
    try:
        status = json.loads(said)
    except ValueError:
        return False, None
    if not isinstance(status, dict):
        return False, None
    return status.get("loggedIn") is True, _LOGIN_TYPES.get(str(status.get("authMethod")))


async def _output_of(command: list[str], environment: Mapping[str, str]) -> str:
    """Run one command to its end; a file takes its output, so that nothing can hold a pipe open."""
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError:
            return ""
        await _end_in_time(process)
        output.seek(0)
        return output.read(_MAX_OUTPUT_BYTES).decode(errors="replace")


async def _end_in_time(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
