"""What a machine reports of itself, and that it goes on whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities import probes
from activities.credential import Credential
from activities.github_access import GithubAccess
from activities.probes import NOT_RUNNABLE, ClaudeProbeSetup, HostReports, probe_claude
from agent.environment import Marker
from demo.forge import Forge
from domain.clock import utc_now
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.hosts import Host
from tests.activities.machine import TOKEN
from tests.activities.outages import Outages
from tests.store.samples import START, World
from tests.workflows.server import eventually

CLAUDE = """#!/bin/sh
case "$1" in
--version) echo "2.1.330 (Claude Code)" ;;
auth) echo "{\\"loggedIn\\": true, \\"authMethod\\": \\"api_key\\"}" ;;
esac
"""


@dataclass
class Desk:
    """A machine that reports to a store that can be away."""

    world: World
    outages: Outages
    credential: Credential
    reports: HostReports
    running: asyncio.Task[None]

    async def row(self) -> Host | None:
        hosts = await self.world.store.live_hosts(START)
        return hosts[0] if hosts else None

    async def until(self, reached: Callable[[Host], object]) -> Host:
        """Wait until the row tells what it should."""
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
    )


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """A program that answers as the CLI does."""
    executable = tmp_path / "claude"
    executable.write_text(CLAUDE)
    executable.chmod(0o755)
    return executable


@pytest.fixture
async def desk(
    world: World, forge: Forge, tmp_path: Path, claude: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    monkeypatch.setattr(probes, "HOST_REPORT_INTERVAL", timedelta(milliseconds=10))
    monkeypatch.setattr(probes, "PROBE_INTERVAL", timedelta(milliseconds=50))
    outages = Outages(world.store)
    host = Host("mill-1", "0123456789ab", "host-mill-1", 2, utc_now())
    user = GithubAccess(lambda: TOKEN, forge.api_url).user
    credential = Credential(outages.store, "c0ffee")
    reports = HostReports(outages.store, host, setup(tmp_path, claude), user, credential)
    running = asyncio.create_task(reports.run_forever())
    yield Desk(world, outages, credential, reports, running)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_machine_appears_at_once_and_its_probes_fill_in(desk: Desk, forge: Forge) -> None:
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
    assert "could not report" in caplog.text
    desk.outages.is_down = False
    await desk.until(lambda row: row.last_seen > seen)
    assert not desk.running.done()


async def test_a_cli_that_goes_away_is_told(desk: Desk, claude: Path) -> None:
    await desk.until_probed()
    claude.unlink()  # noqa: ASYNC240
    row = await desk.until(lambda row: row.claude_version is None)
    assert not row.claude_authenticated
    assert row.claude_login_type is None


async def test_a_credential_that_was_refused_is_told(desk: Desk) -> None:
    """The CLI, when it is asked, does not try it."""
    assert (await desk.until_probed()).claude_authenticated
    desk.credential.was_tried(JobFailure(FailureCode.CLAUDE_AUTHENTICATION))
    row = await desk.until(lambda row: not row.claude_authenticated)
    assert row.claude_version == "2.1.330"
    desk.credential.was_tried(None)
    await desk.until(lambda row: row.claude_authenticated)


async def test_a_machine_that_cannot_probe_still_reports(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when its disk is full."""
    await desk.until_probed()
    (tmp_path / "home").rename(tmp_path / "moved")
    (tmp_path / "home").write_text("in the way")
    await desk.until(lambda row: row.claude_version is None)
    assert not desk.running.done()
    assert "could not be run" in caplog.text


async def test_a_machine_takes_its_row_away_at_the_end(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.until_probed()
    desk.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await desk.running
    desk.outages.is_down = True
    await desk.reports.remove()
    assert "stays until it is old" in caplog.text
    assert await desk.row() is not None
    desk.outages.is_down = False
    for _ in range(2):
        await desk.reports.remove()
    assert await desk.row() is None


async def test_a_process_takes_the_place_of_dead_ones(desk: Desk) -> None:
    """What is still to be done on this machine must not be asked of a process that is dead."""
    await desk.until_probed()
    dead = Host("mill-1", "ba9876543210", "host-mill-1-dead", 2, utc_now() + timedelta(minutes=1))
    other = replace(dead, id="mill-2")
    for host in (dead, other):
        await desk.world.store.report_host(host)
    await desk.reports.succeed([dead.boot_id])
    boots = [(host.id, host.boot_id) for host in await desk.world.store.live_hosts(START)]
    assert boots == [("mill-1", "0123456789ab"), ("mill-2", "ba9876543210")]


async def test_a_process_begins_although_the_store_is_away(desk: Desk) -> None:
    desk.outages.is_down = True
    await desk.reports.succeed(["ba9876543210"])


async def test_a_cli_that_is_not_there_is_no_error(tmp_path: Path, claude: Path) -> None:
    there = setup(tmp_path, claude)
    assert (await probe_claude(there)).version == "2.1.330"
    assert await probe_claude(replace(there, claude_bin="/nowhere/claude")) == NOT_RUNNABLE
