"""Everything that a job needs here, looked at in turn."""

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
from domain.errors import DependencyUnavailable, JobFailure, OrchestratorError
from host.reports import probe_claude
from sandbox.containment import Uncontained
from sandbox.modes import Sandbox, SandboxMode
from settings import Settings
from store.protocol import Store
from temporal.client import connect
from wiring import claude_probe_setup, github_client, sandbox
from workspace.git.runner import Git

if TYPE_CHECKING:
    from github import Github

OLDEST_GIT = (2, 36)
"""The version from which `workspace/` works as it is tested."""

_NOT_RUNNING = "The CLI does not run. Install Claude Code, or set CLAUDE_BIN to it."
_NOT_INSIDE = (
    "The CLI runs, but not in the sandbox: it uses files that jobs do not see. Add their directory "
    "to SANDBOX_READ."
)

REPOSITORIES_CHECKED = 20
CONNECT_SECONDS = 5.0


async def examine(settings: Settings, store: Store, say: Callable[[str], None]) -> int:
    """Say a line for each thing looked at; return 1 if a job could not run here, else 0."""
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
        "DATA_DIR": settings.data_dir,
        "REPOS_DIR": settings.repos_dir,
        "WORKTREES_DIR": settings.worktrees_dir,
    }
    return [await asyncio.to_thread(_directory, name, path) for name, path in places.items()]


def _directory(name: str, path: Path) -> Finding:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            return Finding(name, f"{path} can be written")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        remedy = "Give this user write access to it, or set the variable to another directory."
        return Finding(name, problem=f"{path} cannot be written ({reason}). {remedy}")


async def _git(settings: Settings) -> list[Finding]:
    try:
        Git(settings.search_path)
        said = await asyncio.to_thread(
            subprocess.run,
            ["git", "--version"],
            env={"PATH": settings.search_path},
            capture_output=True,
            text=True,
            check=True,
            timeout=CONNECT_SECONDS,
        )
    except (DependencyUnavailable, OSError, subprocess.SubprocessError):
        return [Finding("git", problem="It is not on PATH. Install git 2.36 or newer.")]
    numbers = [int(number) for number in re.findall(r"\d+", said.stdout)[:2]]
    if tuple(numbers) < OLDEST_GIT:
        old = f"{said.stdout.strip()} is too old. Install 2.36 or newer."
        return [Finding("git", problem=old)]
    return [Finding("git", said.stdout.strip())]


async def _store(settings: Settings, store: Store) -> list[Finding]:
    kind = "Supabase" if settings.uses_supabase else "SQLite"
    key = settings.supabase_key.reveal() if settings.supabase_key else ""
    if key.startswith("sb_publishable_"):
        remedy = "Set SUPABASE_SERVICE_ROLE_KEY to the secret key (sb_secret_...) of the project."
        return [Finding("store", problem=f"The key is the publishable one. {remedy}")]
    try:
        async with asyncio.timeout(4 * CONNECT_SECONDS):
            await store.open()
            await store.ping()
    except OrchestratorError as error:
        return [Finding("store", problem=error.message)]
    except TimeoutError:
        return [Finding("store", problem=f"{kind} does not answer. Check SUPABASE_URL.")]
    return [Finding("store", f"{kind} answers and has the tables")]


async def _temporal(settings: Settings) -> list[Finding]:
    if settings.temporal_address is None:
        return [Finding("Temporal", "`make up` starts its own")]
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connect(settings.temporal_address, settings.temporal_namespace)
    except (RuntimeError, TimeoutError):
        remedy = "Start it, or correct TEMPORAL_ADDRESS and Temporal's TLS variables."
        problem = f"{settings.temporal_address} does not answer. {remedy}"
        return [Finding("Temporal", problem=problem)]
    return [Finding("Temporal", f"{settings.temporal_address} answers")]


async def _sandbox(settings: Settings) -> list[Finding]:
    try:
        return await isolation(settings, await asyncio.to_thread(sandbox, settings))
    except OSError as error:
        return [Finding("sandbox", problem=f"It cannot be made ready: {error}.")]


async def _claude(settings: Settings) -> list[Finding]:
    setup = claude_probe_setup(settings, "doctor", await asyncio.to_thread(sandbox, settings))
    try:
        probed = await probe_claude(setup)
        if probed.version is None and settings.sandbox is not SandboxMode.OFF:
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
    state = f"{probed.version} runs, credential: {probed.login_type} (not tried)"
    return [Finding("Claude", state), _credential(settings)]


def _credential(settings: Settings) -> Finding:
    if settings.hides_credential:
        return Finding("credential", "jobs do not see it; the proxy puts it in place")
    if settings.sandbox is SandboxMode.OFF:
        reason = "without a sandbox there is no proxy that could keep it from them"
    elif settings.has_claude_credentials:
        reason = "Bedrock, Vertex and Foundry need it for each request"
    else:
        reason = (
            "they use this user's own login; ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN hide it"
        )
    return Finding("credential", problem=f"Jobs can read it: {reason}.", is_fatal=False)


async def _github(settings: Settings, store: Store) -> list[Finding]:
    if settings.github_token is None:
        remedy = "Set GITHUB_TOKEN to one with contents and pull requests, read and write."
        return [Finding("GitHub", problem=f"No token, so code jobs cannot run. {remedy}")]
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
    # Only classic tokens tell their scopes; those of fine-grained ones show in the repositories.
    if scopes and not {"repo", "public_repo"} & set(scopes):
        remedy = "Make one with the scope `repo`, or a fine-grained one."
        return Finding("GitHub", problem=f"The token of {login} has no `repo` scope. {remedy}")
    return Finding("GitHub", f"the token works, as {login}")


def _push(github: Github, full_name: str) -> Finding:
    from github import GithubException

    subject = f"GitHub {full_name}"
    remedy = "Give the token access: contents and pull requests, read and write."
    try:
        permissions = github.get_repo(full_name).permissions
    except GithubException as error:
        problem = f"GitHub answers {error.status}. {remedy}"
        return Finding(subject, problem=problem, is_fatal=False)
    if not permissions.push:
        return Finding(subject, problem=f"The token may not push. {remedy}", is_fatal=False)
    return Finding(subject, "the token may push")
