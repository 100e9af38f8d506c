"""The reports of a host, which continue after any error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.process.marker import Marker
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.hosts import Host
from domain.timestamps import utc_now
from fakes.github.server import FakeGitHub
from host import reports as probes
from host.reports import ClaudeProbeSetup, HostReports, probe_claude
from host.slots.credential_holds import Credential
from sandbox.containment import Containment
from sandbox.modes import Sandbox
from scm.github_client import GitHubClient
from scm.github_pull_requests import GitHub
from tests.integration.activities.outages import Outages
from tests.integration.activities.worker_host import TOKEN
from tests.integration.workflows.server import eventually
from tests.sandboxes import real_sandbox
from tests.unit.store.samples import START, World

CLAUDE = """#!/bin/sh
case "$1" in
--version) echo "2.1.330 (Claude Code)" ;;
auth) echo "{\\"loggedIn\\": true, \\"authMethod\\": \\"api_key\\"}" ;;
esac
"""


@dataclass
class Desk:
    """A host that reports to a store that can fail."""

    world: World
    outages: Outages
    credential: Credential
    reports: HostReports
    running: asyncio.Task[None]

    async def row(self) -> Host | None:
        hosts = await self.world.store.live_hosts(START)
        return hosts[0] if hosts else None

    async def until(self, reached: Callable[[Host], object]) -> Host:
        """Wait until the row meets a condition."""
        async with asyncio.timeout(20):
            while (row := await self.row()) is None or not reached(row):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return row

    async def until_probed(self) -> Host:
        return await self.until(lambda row: row.claude_version == "2.1.330")


def setup(tmp_path: Path, claude_bin: Path) -> ClaudeProbeSetup:
    home = tmp_path / "home"
    return ClaudeProbeSetup(
        claude_bin=str(claude_bin),
        search_path="/usr/bin:/bin",
        credentials={},
        home=home,
        config_dir=home / ".claude",
        marker=Marker("data", "boot", "probe"),
        sandbox=real_sandbox(),
    )


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """A program that answers like the CLI."""
    executable = tmp_path / "claude"
    executable.write_text(CLAUDE)
    executable.chmod(0o755)
    return executable


def rewrite(claude: Path, script: str) -> None:
    claude.write_text(f"#!/bin/sh\n{script}\n")


@pytest.fixture
async def desk(
    world: World, forge: FakeGitHub, tmp_path: Path, claude: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    monkeypatch.setattr(probes, "HOST_REPORT_INTERVAL", timedelta(milliseconds=10))
    monkeypatch.setattr(probes, "PROBE_INTERVAL", timedelta(milliseconds=50))
    outages = Outages(world.store)
    host = Host("mill-1", "0123456789ab", "host-mill-1", 2, utc_now())
    github = GitHub(GitHubClient(lambda: TOKEN, forge.api_url))
    credential = Credential(outages.store, "c0ffee")
    reports = HostReports(outages.store, host, setup(tmp_path, claude), github, credential)
    running = asyncio.create_task(reports.run_forever())
    yield Desk(world, outages, credential, reports, running)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_host_reports_at_once_and_adds_its_probes(desk: Desk, forge: FakeGitHub) -> None:
    row = await desk.until_probed()
    assert (row.id, row.boot_id, row.task_queue, row.slots) == (
        "mill-1",
        "0123456789ab",
        "host-mill-1",
        2,
    )
    assert (row.claude_authenticated, row.claude_login_type) == (True, "api_key")
    assert (row.git_authenticated, row.git_user) == (True, "bot")
    await desk.until(lambda later: later.last_seen > row.last_seen)
    forge.tokens.clear()
    assert (await desk.until(lambda later: not later.git_authenticated)).git_user is None


async def test_reports_survive_an_outage(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    seen = (await desk.until_probed()).last_seen
    desk.outages.is_down = True
    failing = desk.outages.calls["report_host"]
    await eventually(lambda: desk.outages.calls["report_host"] > failing + 2)
    assert "The report of this host failed" in caplog.text
    desk.outages.is_down = False
    await desk.until(lambda row: row.last_seen > seen)
    assert not desk.running.done()


async def test_a_removed_cli_is_reported(desk: Desk, claude: Path) -> None:
    await desk.until_probed()
    claude.unlink()  # noqa: ASYNC240
    row = await desk.until(lambda row: row.claude_version is None)
    assert row.sandbox_ok
    assert not row.claude_authenticated
    assert row.claude_login_type is None


async def test_a_refused_credential_is_reported(desk: Desk) -> None:
    """The CLI itself does not try its credential."""
    assert (await desk.until_probed()).claude_authenticated
    desk.credential.record_outcome(JobFailure(FailureCode.CLAUDE_AUTHENTICATION))
    row = await desk.until(lambda row: not row.claude_authenticated)
    assert row.claude_version == "2.1.330"
    desk.credential.record_outcome(None)
    await desk.until(lambda row: row.claude_authenticated)


async def test_a_host_that_cannot_probe_still_reports(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For example because its disk is full."""
    await desk.until_probed()
    (tmp_path / "home").rename(tmp_path / "moved")
    (tmp_path / "home").write_text("in the way")
    await desk.until(lambda row: row.claude_version is None)
    assert not desk.running.done()
    assert "could not be run for a probe" in caplog.text


async def test_a_host_deletes_its_row_at_the_end(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.until_probed()
    desk.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await desk.running
    desk.outages.is_down = True
    await desk.reports.remove()
    assert "was not deleted and will expire" in caplog.text
    assert await desk.row() is not None
    desk.outages.is_down = False
    for _ in range(2):
        await desk.reports.remove()
    assert await desk.row() is None


async def test_a_process_replaces_dead_ones(desk: Desk) -> None:
    """Activities for this host must not go to a dead process."""
    await desk.until_probed()
    dead = Host("mill-1", "ba9876543210", "host-mill-1-dead", 2, utc_now() + timedelta(minutes=1))
    other = replace(dead, id="mill-2")
    for host in (dead, other):
        await desk.world.store.report_host(host)
    await desk.reports.replace_dead([dead.boot_id])
    boots = [(host.id, host.boot_id) for host in await desk.world.store.live_hosts(START)]
    assert boots == [("mill-1", "0123456789ab"), ("mill-2", "ba9876543210")]


async def test_a_process_starts_during_an_outage(desk: Desk) -> None:
    desk.outages.is_down = True
    await desk.reports.replace_dead(["ba9876543210"])


async def test_a_missing_cli_is_a_failure_of_the_probe(tmp_path: Path, claude: Path) -> None:
    there = setup(tmp_path, claude)
    assert (await probe_claude(there)).version == "2.1.330"
    with pytest.raises(JobFailure) as caught:
        await probe_claude(replace(there, claude_bin="/nowhere/claude"))
    assert caught.value.code is FailureCode.CLAUDE_NOT_FOUND


async def test_the_probe_runs_in_the_sandbox(tmp_path: Path, claude: Path) -> None:
    (tmp_path / "secret").write_text("")
    rewrite(claude, f"[ -e {tmp_path}/secret ] || echo 2.1.330")
    assert (await probe_claude(setup(tmp_path, claude))).version == "2.1.330"
    # It can write only to its own directory.
    rewrite(claude, f"touch {tmp_path}/home/x {tmp_path}/x && echo 1.2")
    assert (await probe_claude(setup(tmp_path, claude))).version == "1.2"
    assert (tmp_path / "home" / "x").exists()
    assert not (tmp_path / "x").exists()


async def test_the_probe_uses_the_operators_login(tmp_path: Path, claude: Path) -> None:
    there = replace(setup(tmp_path, claude), config_dir=None)
    (there.home / ".claude").mkdir(parents=True)
    (there.home / ".ssh").mkdir()
    rewrite(claude, '[ -d "$HOME/.claude" ] && [ ! -e "$HOME/.ssh" ] && echo 1.2')
    assert (await probe_claude(there)).version == "1.2"


async def test_a_broken_sandbox_is_reported(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await desk.until_probed()).sandbox_ok

    async def refuse(self: Sandbox) -> Containment:
        raise JobFailure(FailureCode.SANDBOX_UNAVAILABLE)

    monkeypatch.setattr(Sandbox, "require", refuse)
    assert (await desk.until(lambda row: not row.sandbox_ok)).claude_version is None
    assert FailureCode.SANDBOX_UNAVAILABLE.remedy in caplog.text
