"""The command line: refusals, output, and leftover files and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from domain.failures import FailureCode
from tests.e2e.failing import assert_unpublished, failed_as
from tests.e2e.processes import processes
from tests.e2e.steps import say
from tests.stack import ROOT, Stack, running_stack


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_demo_shows_both_walkthroughs_and_removes_its_files(tmp_path: Path):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    done = run("demo", HOME=str(home), TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    for shown in ("A code job", "Its pull request", "+++ b/notes/", "A conversation"):
        assert shown in done.stdout
    assert list(temporary.iterdir()) == []
    assert list(home.iterdir()) == []
    root = str(tmp_path).encode()
    left = [each for each in processes() if root in each.environment or root in each.command]
    assert left == []


def test_api_and_worker_name_everything_that_is_missing(tmp_path: Path):
    required = (
        "AGENT_API_SECRET",
        "SUPABASE_URL",
        "SUPABASE_SERVICE_ROLE_KEY",
        "GITHUB_TOKEN",
        "TEMPORAL_ADDRESS",
    )
    for command in ("api", "worker"):
        done = run(command, HOME=str(tmp_path))
        assert done.returncode == 1
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert all(name in line for name in required)
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_named_at_once(tmp_path: Path):
    done = run("up", HOME=str(tmp_path), PORT="many", MAX_CONCURRENT_JOBS="0")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "PORT is 'many'" in line
    assert "MAX_CONCURRENT_JOBS is '0'" in line


def test_a_second_up_leaves_the_first_alone(stack: Stack):
    client, _ = stack.new_repository()
    before = {each.pid for each in processes() if str(stack.root).encode() in each.environment}
    done = run("up", **stack.environment)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    for name in ("PORT", "TEMPORAL_PORT", "TEMPORAL_HTTP_PORT", "TEMPORAL_UI_PORT"):
        assert f"{name} {stack.environment[name]}" in line
    after = {each.pid for each in processes() if str(stack.root).encode() in each.environment}
    assert before <= after
    stack.wait_for(stack.post_job(client, stack.script([say("Fine.")])), "completed")


@pytest.mark.failure(FailureCode.GITHUB_TOKEN_MISSING)
def test_up_without_credentials_starts_and_names_the_missing_ones(tmp_path: Path):
    without = dict.fromkeys(("GITHUB_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"), "")
    with running_stack(tmp_path / "stack", **without) as stack:
        said = stack.log.read_text()
        assert "No GITHUB_TOKEN is set" in said
        assert "No Claude credential is set" in said
        client, name = stack.new_repository()
        job = failed_as(
            stack, stack.post_job(client, "Change it"), FailureCode.GITHUB_TOKEN_MISSING
        )
        assert "GITHUB_TOKEN" in job["error"]
        question = stack.post_job(client, "What is it?", jobType="task")
        failed_as(stack, question, FailureCode.GITHUB_TOKEN_MISSING)
        assert_unpublished(stack, name)

        # A public repository can be read without a token, so the job fails at Claude's login.
        stack.github.repository("acme", name).private = False
        question = stack.post_job(client, "What is it?", jobType="task")
        job = failed_as(stack, question, FailureCode.CLAUDE_AUTHENTICATION)
        assert "ANTHROPIC_API_KEY" in job["error"]
        health = stack.call("GET", "/health")
        assert health["status"] == "ok"
        assert health["claude"]["authenticated"] is False
        assert health["git"]["authenticated"] is False
