"""Jobs on a host that cannot isolate them, and jobs that exceed a resource limit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.failures import FailureCode
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.steps import bash, say, write
from tests.stack import Stack, running_stack

SAID = "bwrap: No permissions to create a new namespace, likely because the kernel forbids it"

BWRAP = f"""#!/bin/sh
if [ "$1" != --version ] && [ -e {{refusing}} ]; then
    echo '{SAID}' >&2
    exit 1
fi
exec {{real}} "$@"
"""
"""A bwrap that fails on demand, as the real one does if the kernel refuses it."""


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file exists, no namespace can be created."""
    return tmp_path_factory.mktemp("kernel") / "refusing"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, refusing: Path) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("strict")
    programs = root / "bin"
    programs.mkdir()
    bwrap = programs / "bwrap"
    bwrap.write_text(BWRAP.format(refusing=refusing, real=shutil.which("bwrap")))
    bwrap.chmod(0o755)
    with running_stack(
        root / "stack", PATH=f"{programs}:{os.environ['PATH']}", SANDBOX_PROCESSES="100"
    ) as stack:
        yield stack


@pytest.mark.failure(FailureCode.SANDBOX_UNAVAILABLE)
@pytest.mark.parametrize("job_type", ["code", "task"])
def test_a_host_that_cannot_isolate(strict: Stack, refusing: Path, job_type: str):
    client, name = strict.new_repository()
    asked = len(strict.model.requests())
    refusing.touch()
    try:
        job_id = strict.post_job(client, "Change it", jobType=job_type)
        job = failed_as(strict, job_id, FailureCode.SANDBOX_UNAVAILABLE)
    finally:
        refusing.unlink()
    assert f"({SAID})" in job["error"]
    assert "SANDBOX=off" in job["error"]
    assert job["attempt"] == 0
    assert job["pid"] is None
    assert len(strict.model.requests()) == asked
    assert_unpublished(strict, name)
    assert kept_files(strict, job_id) == set()


@pytest.mark.failure(FailureCode.JOB_LIMIT_EXCEEDED)
def test_a_job_that_starts_too_many_processes(strict: Stack):
    client, name = strict.new_repository()
    many = bash("for each in $(seq 200); do /bin/sleep 60 & done; wait")
    prompt = strict.script([write("a.txt", "a"), many, say("Not reached.")])
    job_id = strict.post_job(client, prompt)
    job = failed_as(strict, job_id, FailureCode.JOB_LIMIT_EXCEEDED)
    assert "processes and threads, and SANDBOX_PROCESSES is 100." in job["error"]
    assert_unpublished(strict, name)
    assert kept_files(strict, job_id) == {"a.txt"}
