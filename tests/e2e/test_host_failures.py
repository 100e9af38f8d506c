"""Jobs that fail because their host lacks something, or because an operator intervenes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from temporalio.client import Client as TemporalClient

from agent.claude.executable import find_executable
from domain.failures import FailureCode
from tests.e2e.failing import assert_unpublished, failed_as, kept_files, notices
from tests.e2e.processes import commands_of, processes_of
from tests.e2e.steps import bash, say, wait_for_file, write
from tests.small_disk import can_mount, small_disk
from tests.stack import Stack, eventually, running_stack

PROGRAMS = ("git", "sh", "cat", "bash", "head")
"""All programs on the PATH of the minimal host; git-lfs is missing.; git-lfs is not."""


@pytest.fixture(scope="module")
def claude_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    claude = tmp_path_factory.mktemp("claude") / "claude"
    claude.symlink_to(find_executable(None, "/usr/local/bin:/usr/bin:/bin"))
    return claude


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory, claude_bin: Path) -> Iterator[Stack]:
    """An installation on a host with few programs and, if it can be mounted, a small disk."""
    root = tmp_path_factory.mktemp("minimal")
    programs, disk = root / "bin", root / "disk"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(shutil.which(name) or "")
    with ExitStack() as mounted:
        if can_mount():
            mounted.enter_context(small_disk(disk))
        with running_stack(
            root / "stack",
            PATH=str(programs),
            CLAUDE_BIN=str(claude_bin),
            REPOS_DIR=str(disk / "repos"),
            WORKTREES_DIR=str(disk / "worktrees"),
        ) as stack:
            yield stack


def sweep(stack: Stack) -> None:
    """Restart the worker, which sweeps at its start."""
    [worker] = stack.pids("cli.py worker")
    os.kill(worker, signal.SIGTERM)


@pytest.mark.failure(FailureCode.CLAUDE_NOT_FOUND)
def test_a_host_without_claude(minimal: Stack, claude_bin: Path):
    client, name = minimal.new_repository()
    aside = claude_bin.rename(claude_bin.with_name("aside"))
    try:
        job = failed_as(
            minimal, minimal.post_job(client, "Change it"), FailureCode.CLAUDE_NOT_FOUND
        )
    finally:
        aside.rename(claude_bin)
    assert str(claude_bin) in job["error"]
    assert_unpublished(minimal, name)
    assert kept_files(minimal, job["id"]) == set()


@pytest.mark.failure(FailureCode.GIT_LFS_MISSING)
def test_a_host_without_git_lfs(minimal: Stack):
    files = {".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n"}
    client, name = minimal.new_repository(files=files)
    job = failed_as(minimal, minimal.post_job(client, "Change it"), FailureCode.GIT_LFS_MISSING)
    assert job["attempt"] == 0
    assert_unpublished(minimal, name)
    assert kept_files(minimal, job["id"]) == set()


@pytest.mark.failure(FailureCode.DISK_FULL)
@pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")
def test_a_disk_that_claude_fills(minimal: Stack):
    """The work cannot be kept on the full disk either, until there is space again."""
    client, name = minimal.new_repository(files={".gitignore": "*.bin\n"})
    fill = bash("head -c 64M /dev/zero > big.bin; true")
    prompt = minimal.script([write("a.txt", "a"), fill, say("Done.")])
    job_id = minimal.post_job(client, prompt)
    minimal.wait_for(job_id, lambda job: job["status"] == "failed" and job["phase"] is None, 90)
    told = minimal.call("GET", f"/jobs/{job_id}/patch", status=404)
    assert "its host has not saved it yet" in told["error"]

    worktree = Path(minimal.job(job_id)["worktree_path"])
    (worktree / "big.bin").unlink()
    sweep(minimal)
    eventually(lambda: not worktree.exists(), 30, "it is swept")
    failed_as(minimal, job_id, FailureCode.DISK_FULL)
    assert_unpublished(minimal, name)
    assert kept_files(minimal, job_id) == {"a.txt"}


@pytest.mark.failure(FailureCode.INTERNAL)
def test_an_internal_error(stack: Stack):
    """A directory blocks the path of the worktree's record."""
    client, name = stack.new_repository()
    prompt = stack.script([say("First."), say("Not reached.")])
    job_id = stack.post_job(client, prompt, jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    record = Path(f"{stack.job(job_id)['worktree_path']}.json")
    content = record.read_text()
    record.unlink()
    record.mkdir()
    stack.call("POST", f"/jobs/{job_id}/message", {"message": "Go on."})
    stack.wait_for(job_id, "failed")
    record.rmdir()
    record.write_text(content)
    job = failed_as(stack, job_id, FailureCode.INTERNAL)
    assert "IsADirectoryError" in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job_id) == set()


@pytest.mark.failure(FailureCode.WORKFLOW_ENDED)
async def test_a_workflow_that_an_operator_terminates(stack: Stack):
    client, name = stack.new_repository()
    signal_file = stack.signal_file()
    prompt = stack.script([write("a.txt", "a"), wait_for_file(signal_file), say("Done.")])
    job_id = stack.post_job(client, prompt)
    eventually(lambda: commands_of(job_id, str(signal_file)), 60, "the command runs")
    temporal = await TemporalClient.connect(stack.temporal_address)
    await temporal.get_workflow_handle(f"job-{job_id}").terminate("by hand")
    job = stack.wait_for(job_id, "failed")
    eventually(lambda: processes_of(job_id) == [], 30, "Claude has ended")
    sweep(stack)
    eventually(lambda: not Path(job["worktree_path"]).exists(), 30, "it is swept")
    failed_as(stack, job_id, FailureCode.WORKFLOW_ENDED)
    assert notices(stack, job_id).count(f"Job failed: {job['error']}") == 1
    assert_unpublished(stack, name)
    assert kept_files(stack, job_id) == {"a.txt"}
