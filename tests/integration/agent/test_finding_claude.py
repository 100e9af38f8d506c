from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import pytest

from agent.claude import executable as executable_module
from agent.claude.executable import ClaudeProbe, find_executable, probe
from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.agent.conftest import SEARCH_PATH, ScriptedJob, is_running, until


def program(directory: Path, name: str, body: str = "") -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_configured_executable_comes_first(tmp_path: Path) -> None:
    other = program(tmp_path, "other")
    on_path = program(tmp_path, "claude")
    assert find_executable(str(other), str(tmp_path)) == other
    assert find_executable("other", str(tmp_path)) == other
    assert find_executable(None, str(tmp_path)) == on_path


def test_the_bundled_executable_comes_last() -> None:
    result = find_executable(None, "/nonexistent")
    assert result.parts[-3:] == ("claude_agent_sdk", "_bundled", "claude")
    assert "claude_agent_sdk" not in sys.modules


def test_a_wrong_configured_executable_is_not_replaced(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    with pytest.raises(JobFailure, match="CLAUDE_BIN") as caught:
        find_executable("/no/such/claude", str(tmp_path))
    assert caught.value.code is FailureCode.CLAUDE_NOT_FOUND


def test_a_missing_executable_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable_module, "_bundled_executable", lambda: None)
    with pytest.raises(JobFailure) as caught:
        find_executable(None, "")
    assert caught.value.code is FailureCode.CLAUDE_NOT_FOUND


@pytest.mark.parametrize(
    ("credential", "login_type"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, "api_key"),
        ({"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "t"}, "oauth_token"),
        ({"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_USE_BEDROCK": "1"}, "cloud"),
        ({"ANTHROPIC_API_KEY": ""}, None),
    ],
)
async def test_the_real_cli_reports_its_version_and_login(
    job: ScriptedJob, credential: dict[str, str], login_type: str | None
) -> None:
    result = await probe(job.executable, {**job.environment, **credential})
    assert re.fullmatch(r"\d+\.\d+\.\d+", result.version or "")
    assert (result.authenticated, result.login_type) == (login_type is not None, login_type)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("exit 1", ClaudeProbe(None, False, None)),
        ("echo none; exit 1", ClaudeProbe(None, False, None)),
        ("echo 1.2.3", ClaudeProbe("1.2.3", False, None)),
        ('test "$1" = auth && echo "[1]" || echo 1.2.3', ClaudeProbe("1.2.3", False, None)),
        (
            """test "$1" = auth && echo '{"loggedIn": true, "authMethod": 7}' || echo 1.2.3""",
            ClaudeProbe("1.2.3", True, None),
        ),
    ],
)
async def test_a_failing_cli_is_not_an_error(
    tmp_path: Path, body: str, expected: ClaudeProbe
) -> None:
    result = await probe(program(tmp_path, "claude", body), {"PATH": SEARCH_PATH})
    assert result == expected


async def test_a_missing_cli_is_not_an_error(tmp_path: Path) -> None:
    assert await probe(tmp_path / "missing", {}) == ClaudeProbe(None, False, None)


async def test_a_hanging_cli_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable_module, "PROBE_SECONDS", 0.2)
    began = time.monotonic()
    hanging = program(tmp_path, "claude", f"echo $$ > {tmp_path}/pid; sleep 300; true")

    assert await probe(hanging, {"PATH": SEARCH_PATH}) == ClaudeProbe(None, False, None)

    assert time.monotonic() - began < 5
    assert not is_running(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_probe_leaves_no_process(tmp_path: Path) -> None:
    hanging = program(tmp_path, "claude", f"echo $$ > {tmp_path}/pid; exec sleep 300")
    asyncio_task = asyncio.create_task(probe(hanging, {"PATH": SEARCH_PATH}))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    asyncio_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio_task
    assert not is_running(int((tmp_path / "pid").read_text()))
