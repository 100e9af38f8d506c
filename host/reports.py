"""What a machine reports of itself: its slots, and whether Claude and GitHub work."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
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
from host.slots.credential_holds import Credential
from sandbox.containment import Reach
from sandbox.modes import Sandbox
from store.protocol import Store

PROBE_INTERVAL = timedelta(minutes=5)
"""A probe starts the CLI twice and asks GitHub once: half a second of a processor (measured)."""

NOT_RUNNABLE = ClaudeProbe(version=None, authenticated=False, login_type=None)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaudeProbeSetup:
    """How to run the CLI for its probe: as a job would.

    `config_dir` is None where jobs use the operator's own login, which is below `home`.
    """

    claude_bin: str | None
    search_path: str
    credentials: Mapping[str, str]
    home: Path
    config_dir: Path | None
    marker: Marker
    sandbox: Sandbox


class HostReports:
    """Keeps this process's row in the store fresh."""

    def __init__(
        self,
        store: Store,
        host: Host,
        claude: ClaudeProbeSetup,
        github_user: Callable[[], Awaitable[str | None]],
        credential: Credential,
    ) -> None:
        self._store = store
        self._host = host
        self._claude = claude
        self._github_user = github_user
        self._credential = credential

    async def run_forever(self) -> None:
        """Report every two seconds, and probe every five minutes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_forever())
            group.create_task(self._probe_forever())

    async def remove(self) -> None:
        """Take the row away at the end; an outage leaves it to grow old."""
        await self._forget(self._host.boot_id)

    async def replace_dead(self, dead: Collection[str]) -> None:
        """Take the place of earlier processes of this machine, given by their boot ids.

        From now on what has to be done on this machine is asked of this process.
        """
        await self._report()
        for boot_id in dead:
            await self._forget(boot_id)

    async def _report_forever(self) -> None:
        while True:
            await self._report()
            await asyncio.sleep(HOST_REPORT_INTERVAL.total_seconds())

    async def _report(self) -> None:
        # The CLI only tells that there is a credential; jobs find out whether it is taken.
        is_authenticated = self._host.claude_authenticated and not self._credential.is_refused
        report = replace(self._host, last_seen=utc_now(), claude_authenticated=is_authenticated)
        try:
            await self._store.report_host(report)
        except OrchestratorError as error:
            log.warning("This host could not report: %s", error)

    async def _forget(self, boot_id: str) -> None:
        try:
            await self._store.remove_host(self._host.id, boot_id)
        except DependencyUnavailable as error:
            log.warning("The row of process %s stays until it is old: %s", boot_id, error)

    async def _probe_forever(self) -> None:
        while True:
            (claude, works), user = await asyncio.gather(self._probe(), self._github_user())
            self._host = replace(
                self._host,
                sandbox_ok=works,
                claude_version=claude.version,
                claude_authenticated=claude.authenticated,
                claude_login_type=claude.login_type,
                git_authenticated=user is not None,
                git_user=user,
            )
            await asyncio.sleep(PROBE_INTERVAL.total_seconds())

    async def _probe(self) -> tuple[ClaudeProbe, bool]:
        """Return what the CLI says, and whether the sandbox works."""
        try:
            return await probe_claude(self._claude), True
        except JobFailure as failure:
            log.warning("%s", failure.message)
            return NOT_RUNNABLE, failure.code is not FailureCode.SANDBOX_UNAVAILABLE


async def probe_claude(setup: ClaudeProbeSetup) -> ClaudeProbe:
    """Return what the CLI says of itself, run as a job would run it.

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
        # A full disk must not end the worker, whose jobs may still finish.
        log.warning("Claude could not be run to ask for its version: %s", error)
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
