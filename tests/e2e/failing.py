"""Checks of failed jobs."""

from __future__ import annotations

import re
from pathlib import Path

from domain.failures import FailureCode, TimeLimit
from tests.e2e.processes import processes_of
from tests.stack import OWNER, Json, Stack, eventually


def failed_as(
    stack: Stack,
    job_id: str,
    code: FailureCode,
    clock: TimeLimit | None = None,
    seconds: float = 60,
) -> Json:
    """Wait until the job has failed with the code, and check its error and cleanup."""
    job: Json = stack.wait_for(
        job_id,
        lambda job: job["status"] not in {"queued", "running"} and job["phase"] is None,
        seconds,
    )
    assert job["failure_code"] == code, job["error"]
    reason = clock or code
    assert job["failure"] == {
        "code": code,
        "message": job["error"],
        "remedy": reason.remedy,
        "retryable": reason.retryable,
        **({"clock": clock} if clock else {}),
    }
    assert (job["status"], job["outcome"]) == ("failed", None)
    assert job["error"]
    assert job["completed_at"]
    eventually(
        lambda: f"Job failed: {job['error']}" in notices(stack, job_id),
        30,
        "the failure is in the transcript",
    )
    assert processes_of(job_id) == []
    assert not Path(job["worktree_path"] or "/nowhere").exists()
    assert job_id not in str(stack.call("GET", "/queue"))
    return job


def notices(stack: Stack, job_id: str) -> list[str]:
    """Return the orchestrator's messages in the job's transcript."""
    return [line["content"] for line in stack.messages(job_id) if line["type"] == "system"]


def kept_files(stack: Stack, job_id: str) -> set[str]:
    """Return the files that the job's kept work changes. Empty without kept work."""
    answer = stack.http.get(f"/jobs/{job_id}/patch")
    assert answer.status_code in {200, 404}, answer.text
    return set(re.findall(r"^diff --git a/(\S+) b/", answer.text, re.MULTILINE))


def assert_unpublished(stack: Stack, name: str, *branches: str) -> None:
    """Check that the repository has only its main branch, these branches, and no pull request."""
    assert sorted(stack.github.branches(OWNER, name)) == sorted(["main", *branches])
    assert stack.github.pull_requests(OWNER, name) == []
