"""All checks of `orchestrator doctor`."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from commands.doctor.finding import Finding
from commands.doctor.isolation import isolation
from domain.configuration.isolation import SandboxMode
from domain.errors import DependencyUnavailable, JobFailure, OrchestratorError
from host.reports import probe_claude
from sandbox.containment import Uncontained
from sandbox.modes import Sandbox
from settings import Settings
from store.protocol import Store
from temporal.client import connect
from wiring import claude_probe_setup, github_client, sandbox
from workspace.git.runner import Git

if TYPE_CHECKING:
    from github import Github

MIN_GIT = (2, 36)
"""The oldest version of git that `workspace/` is tested with."""

_NOT_RUNNING = "The Claude CLI does not run. Install Claude Code, or set CLAUDE_BIN to its path."
_NOT_INSIDE = (
    "The Claude CLI runs, but not in the sandbox: it needs files that jobs cannot see. Add their "
    "directory to SANDBOX_READ."
)

REPOSITORIES_CHECKED = 20
"""Each repository takes one request to GitHub, so a large installation is only sampled."""

CONNECT_SECONDS = 5.0
"""Time limit of one check. A local service answers in milliseconds, a remote one within 1 s."""

STORE_SECONDS = 4 * CONNECT_SECONDS
"""Longer, because opening the store may create its schema."""


async def examine(settings: Settings, store: Store, say: Callable[[str], None]) -> int:
    """Print a line for each check; return 1 if jobs cannot run on this host, otherwise 0."""
    groups = (
        _directories(settings),
        _git(settings),
        _sandbox(settings),
        _store(settings, store),
        _temporal(settings),
        _claude(settings),
        _github(settings, store),
    )
    is_fatal = False
    for group in groups:
        for finding in await group:
            say(finding.line)
            is_fatal |= finding.problem is not None and finding.is_fatal
    await store.close()
    return 1 if is_fatal else 0


async def _directories(settings: Settings) -> list[Finding]:
    places = {
        "DATA_DIR": settings.host.data_dir,
        "REPOS_DIR": settings.host.repos_dir,
        "WORKTREES_DIR": settings.host.worktrees_dir,
    }
    return [await asyncio.to_thread(_directory, name, path) for name, path in places.items()]


def _directory(name: str, path: Path) -> Finding:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            return Finding(name, f"{path} is writable")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        remedy = f"Give this user write access, or set {name} to another directory."
        return Finding(name, problem=f"{path} is not writable ({reason}). {remedy}")


async def _git(settings: Settings) -> list[Finding]:
    try:
        Git(settings.host.search_path)
        ended = await asyncio.to_thread(
            subprocess.run,
            ["git", "--version"],
            env={"PATH": settings.host.search_path},
            capture_output=True,
            text=True,
            check=True,
            timeout=CONNECT_SECONDS,
        )
    except (DependencyUnavailable, OSError, subprocess.SubprocessError):
        return [Finding("git", problem="git is not on PATH. Install git 2.36 or newer.")]
    numbers = [int(number) for number in re.findall(r"\d+", ended.stdout)[:2]]
    if tuple(numbers) < MIN_GIT:
        problem = f"{ended.stdout.strip()} is too old. Install git 2.36 or newer."
        return [Finding("git", problem=problem)]
    return [Finding("git", ended.stdout.strip())]


async def _store(settings: Settings, store: Store) -> list[Finding]:
    kind = "Supabase" if settings.store.uses_supabase else "SQLite"
    key = settings.store.supabase_key.get_secret_value() if settings.store.supabase_key else ""
    if key.startswith("sb_publishable_"):
        problem = "SUPABASE_SERVICE_ROLE_KEY is the publishable key, which cannot write the tables."
        remedy = "Set it to the secret key of the project (sb_secret_...)."
        return [Finding("store", problem=f"{problem} {remedy}")]
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await store.open()
            await store.ping()
    except OrchestratorError as error:
        return [Finding("store", problem=error.message)]
    except TimeoutError:
        remedy = (
            "Check SUPABASE_URL." if settings.store.uses_supabase else "Check the disk of DATA_DIR."
        )
        return [Finding("store", problem=f"{kind} does not answer. {remedy}")]
    return [Finding("store", f"{kind} answers and has the tables")]


async def _temporal(settings: Settings) -> list[Finding]:
    if settings.temporal.address is None:
        return [
            Finding("Temporal", "TEMPORAL_ADDRESS is not set, so `make up` starts its own server")
        ]
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connect(settings.temporal.address, settings.temporal.namespace)
    except (RuntimeError, TimeoutError):
        remedy = "Start Temporal, or correct TEMPORAL_ADDRESS and the TLS variables."
        problem = f"{settings.temporal.address} does not answer. {remedy}"
        return [Finding("Temporal", problem=problem)]
    return [Finding("Temporal", f"{settings.temporal.address} answers")]


async def _sandbox(settings: Settings) -> list[Finding]:
    try:
        return await isolation(settings, await asyncio.to_thread(sandbox, settings))
    except OSError as error:
        return [Finding("sandbox", problem=f"The sandbox cannot be prepared: {error}.")]


async def _claude(settings: Settings) -> list[Finding]:
    setup = claude_probe_setup(settings, "doctor", await asyncio.to_thread(sandbox, settings))
    try:
        probed = await probe_claude(setup)
        if probed.version is None and settings.sandbox.mode is not SandboxMode.OFF:
            outside = Sandbox(SandboxMode.OFF, Uncontained())
            if (await probe_claude(replace(setup, sandbox=outside))).version is not None:
                return [Finding("Claude", problem=_NOT_INSIDE)]
    except JobFailure as failure:
        return [Finding("Claude", problem=failure.message)]
    if probed.version is None:
        return [Finding("Claude", problem=_NOT_RUNNING)]
    if not probed.authenticated:
        remedy = "Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN, or log in with `claude`."
        return [Finding("Claude", problem=f"{probed.version} is not logged in. {remedy}")]
    state = f"{probed.version} runs; its credential is {probed.login_type} (not tested)"
    return [Finding("Claude", state), _credential(settings)]


def _credential(settings: Settings) -> Finding:
    if settings.hides_credential:
        return Finding("credential", "hidden from jobs; the proxy adds it to their requests")
    if settings.sandbox.mode is SandboxMode.OFF:
        reason = "with SANDBOX=off there is no proxy that could hide it. Set SANDBOX=on"
    elif settings.claude.has_credentials:
        reason = (
            "Bedrock, Vertex and Foundry need it for each request. Give it only the "
            "permissions that Claude needs"
        )
    else:
        reason = (
            "they use this user's own login. Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN to "
            "hide it"
        )
    return Finding(
        "credential", problem=f"Jobs can read Claude's credential: {reason}.", is_fatal=False
    )


async def _github(settings: Settings, store: Store) -> list[Finding]:
    if settings.github.token is None:
        problem = "GITHUB_TOKEN is not set, so code jobs cannot run."
        remedy = "Set it to a token that may read and write contents and pull requests."
        return [Finding("GitHub", problem=f"{problem} {remedy}")]
    access = github_client(settings)
    try:
        token = await access.call(_token)
        names = (await _repositories(store))[:REPOSITORIES_CHECKED]
        return [token, *await access.call(lambda github: [_push(github, name) for name in names])]
    except JobFailure as failure:
        return [Finding("GitHub", problem=failure.message)]


async def _repositories(store: Store) -> list[str]:
    try:
        return [repository.full_name for repository in await store.list_repositories()]
    except OrchestratorError:
        return []


def _token(github: Github) -> Finding:
    login = github.get_user().login
    scopes = github.oauth_scopes
    # Only classic tokens list their scopes. `_push` checks the permissions of fine-grained tokens.
    if scopes and not {"repo", "public_repo"} & set(scopes):
        remedy = "Create a token with the scope `repo`, or a fine-grained token."
        return Finding("GitHub", problem=f"The token of {login} has no `repo` scope. {remedy}")
    return Finding("GitHub", f"the token works, as {login}")


def _push(github: Github, full_name: str) -> Finding:
    from github import GithubException

    subject = f"GitHub {full_name}"
    remedy = "Give the token read and write access to its contents and pull requests."
    try:
        permissions = github.get_repo(full_name).permissions
    except GithubException as error:
        problem = f"GitHub answers {error.status} for this repository. {remedy}"
        return Finding(subject, problem=problem, is_fatal=False)
    if not permissions.push:
        return Finding(
            subject, problem=f"The token may not push to this repository. {remedy}", is_fatal=False
        )
    return Finding(subject, "the token may push")
