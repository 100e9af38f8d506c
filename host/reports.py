"""Report the state of this host: its slots, and whether Claude and GitHub work."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from agent.claude.environment import child_environment
from agent.claude.executable import ClaudeProbe, find_executable, probe
from agent.process.marker import Marker
from domain.errors import DependencyUnavailable, JobFailure, OrchestratorError
from domain.failures import FailureCode
from domain.hosts import HOST_REPORT_INTERVAL, Host
from domain.timestamps import utc_now
from host.loops import run_every
from host.slots.credential_holds import Credential
from sandbox.containment import Reach
from sandbox.modes import Sandbox
from scm.protocol import CodeHost
from store.protocol import Store

PROBE_INTERVAL = timedelta(minutes=5)
"""A probe starts the CLI twice and calls GitHub once; it takes 0.5 s of CPU time (measured)."""

NOT_RUNNABLE = ClaudeProbe(version=None, authenticated=False, login_type=None)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaudeProbeSetup:
    """How to run the CLI for a probe; the same way as for jobs.

    `config_dir` is None if jobs use the operator's login, which is in `home`.
    """

    claude_bin: str | None
    search_path: str
    credentials: Mapping[str, str]
    home: Path
    config_dir: Path | None
    marker: Marker
    sandbox: Sandbox


class HostReports:
    """Keeps the row of this process in the store up to date."""

    def __init__(
        self,
        store: Store,
        host: Host,
        claude: ClaudeProbeSetup,
        code_host: CodeHost,
        credential: Credential,
    ) -> None:
        self._store = store
        self._host = host
        self._claude = claude
        self._code_host = code_host
        self._credential = credential

    async def run_forever(self) -> None:
        """Report and probe periodically until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                run_every(HOST_REPORT_INTERVAL, self._report, name="The report of this host")
            )
            group.create_task(run_every(PROBE_INTERVAL, self._probe, name="The probe of this host"))

    async def remove(self) -> None:
        """Delete the row when the process ends. After an outage the row expires."""
        await self._forget(self._host.boot_id)

    async def replace_dead(self, dead: Collection[str]) -> None:
        """Replace dead processes of this host, given by their boot ids.

        Activities for this host then go to this process.
        """
        try:
            await self._report()
        except OrchestratorError as error:
            log.warning("This host could not report yet: %s", error)
        for boot_id in dead:
            await self._forget(boot_id)

    async def _report(self) -> None:
        # The CLI only reports that a credential is present. A turn shows whether it works.
        is_authenticated = self._host.claude_authenticated and not self._credential.is_refused
        report = replace(self._host, last_seen=utc_now(), claude_authenticated=is_authenticated)
        await self._store.report_host(report)

    async def _forget(self, boot_id: str) -> None:
        try:
            await self._store.remove_host(self._host.id, boot_id)
        except DependencyUnavailable as error:
            log.warning("The row of process %s was not deleted and will expire: %s", boot_id, error)

    async def _probe(self) -> None:
        (claude, sandbox_ok), user = await asyncio.gather(
            self._probe_claude(), self._code_host.viewer()
        )
        self._host = replace(
            self._host,
            sandbox_ok=sandbox_ok,
            claude_version=claude.version,
            claude_authenticated=claude.authenticated,
            claude_login_type=claude.login_type,
            git_authenticated=user is not None,
            git_user=user,
        )

    async def _probe_claude(self) -> tuple[ClaudeProbe, bool]:
        """Return the result of the probe, and whether the sandbox works."""
        try:
            return await probe_claude(self._claude), True
        except JobFailure as failure:
            log.warning("%s", failure.message)
            return NOT_RUNNABLE, failure.code is not FailureCode.SANDBOX_UNAVAILABLE


async def probe_claude(setup: ClaudeProbeSetup) -> ClaudeProbe:
    """Return the version and login of the CLI, run in the same way as for a job.

    Raises:
        JobFailure: SANDBOX_UNAVAILABLE or CLAUDE_NOT_FOUND.
    """
    containment = await setup.sandbox.require()
    executable = find_executable(setup.claude_bin, setup.search_path)
    reach = _reach(setup, executable)
    try:
        setup.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return await probe(
            executable, _environment(setup), lambda command: containment.around(command, reach)
        )
    except OSError as error:
        # A full disk must not end the worker: its running jobs may still finish.
        log.warning("Claude Code could not be run for a probe: %s", error)
    return NOT_RUNNABLE


def _reach(setup: ClaudeProbeSetup, executable: Path) -> Reach:
    readable = (executable, Path(os.path.realpath(executable)))
    if setup.config_dir is not None:
        return Reach((setup.home,), readable)
    login = (setup.home / ".claude", setup.home / ".claude.json")
    return Reach(login, readable, empty=(setup.home,))


def _environment(setup: ClaudeProbeSetup) -> dict[str, str]:
    return child_environment(
        setup.credentials,
        search_path=setup.search_path,
        home=setup.home,
        config_dir=setup.config_dir,
        marker=setup.marker,
        identity={},
    )
