"""Unpublished work is kept, available as a patch, and published later without Claude."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.failures import FailureCode
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.steps import COMMIT_ALL, bash, say, wait_for_file, write
from tests.stack import OWNER, Json, Stack, eventually

STEPS = [
    bash(f"echo one > one.txt; {COMMIT_ALL} 'Claude commits'"),
    write("two.txt", "two\n"),
    say("Two files."),
]


def git(*arguments: str, at: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, check=True)
    return done.stdout


def failed_job(stack: Stack, client: str, prompt: str, **body: str) -> Json:
    job_id = stack.post_job(client, prompt, branchName="feature/x", title="Two files", **body)
    eventually(lambda: stack.job(job_id)["status"] == "failed", 90, "failed")
    eventually(lambda: stack.job(job_id)["phase"] is None, 60, "cleaned up")
    return stack.job(job_id)


def applied(stack: Stack, name: str, job_id: str, directory: Path) -> list[str]:
    """Return the files of a new clone after applying the job's patch."""
    answer = stack.http.get(f"/jobs/{job_id}/patch")
    assert answer.status_code == 200
    source = str(stack.github.repository(OWNER, name).bare.path)
    git("clone", "--quiet", source, str(directory), at=directory.parent)
    git("checkout", "--quiet", answer.headers["X-Base-Commit"], at=directory)
    patch = directory.parent / "work.patch"
    patch.write_text(answer.text)
    git("apply", "--index", str(patch), at=directory)
    return git("ls-files", at=directory).split()


def model_calls(stack: Stack, prompt: str) -> int:
    name = prompt.removeprefix("[[script:").removesuffix("]]")
    return sum(request["main"] for request in stack.model.requests(name))


@pytest.mark.parametrize("operation", ["git-receive-pack", "pulls/create"])
def test_refused_work_is_kept_and_published_without_claude(
    stack: Stack, tmp_path: Path, operation: str
) -> None:
    client, name = stack.new_repository()
    prompt = stack.script(STEPS)
    stack.github.fail_next(operation, status=403)
    job = failed_job(stack, client, prompt)
    assert job["failure"]["code"] == "github_permission"
    assert job["failure"]["remedy"]
    assert {"one.txt", "two.txt"} <= set(applied(stack, name, job["id"], tmp_path / "clone"))
    assert stack.github.pull_requests(OWNER, name) == []

    asked = model_calls(stack, prompt)
    retried = stack.call("POST", f"/jobs/{job['id']}/retry", {"from": "publish"}, 201)
    done = stack.wait_for(retried["id"], "completed")
    assert (done["retry_of"], done["retry_from"]) == (job["id"], "publish")
    assert (done["outcome"], done["cost"], done["files_changed"]) == ("pull_request", None, 2)
    assert model_calls(stack, prompt) == asked
    [pull] = stack.github.pull_requests(OWNER, name)
    assert pull.head == retried["branchName"]
    assert "Two files." in (pull.body or "")
    log = stack.github.log(OWNER, name, retried["branchName"])
    assert [entry.subject for entry in log] == ["Two files", "Claude commits", "Initial commit"]
    eventually(lambda: stack.job(retried["id"])["phase"] is None, 60, "cleaned up")
    assert stack.http.get(f"/jobs/{retried['id']}/patch").status_code == 404


def test_work_of_a_cancelled_job_is_kept(stack: Stack, tmp_path: Path) -> None:
    client, name = stack.new_repository()
    prompt = stack.script([*STEPS[:2], wait_for_file(stack.signal_file()), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    eventually(lambda: model_calls(stack, prompt) == 3, 60, "both files are there")
    assert stack.http.get(f"/jobs/{job_id}/patch").status_code == 409
    stack.call("POST", f"/jobs/{job_id}/cancel")
    eventually(lambda: stack.job(job_id)["phase"] is None, 60, "cleaned up")
    assert {"one.txt", "two.txt"} <= set(applied(stack, name, job_id, tmp_path / "clone"))
    retried = stack.call("POST", f"/jobs/{job_id}/retry", {"from": "publish"}, 201)
    stack.wait_for(retried["id"], "completed")
    assert len(stack.github.pull_requests(OWNER, name)) == 1


def mirror_of(stack: Stack, name: str) -> Path:
    [mirror] = (stack.root / "repos").rglob(f"{name}.git")
    return mirror


def in_store(stack: Stack, statement: str, *values: str | None) -> None:
    with contextlib.closing(sqlite3.connect(stack.root / "data" / "orchestrator.db")) as store:
        store.execute(statement, values)
        store.commit()


def forget_work(stack: Stack, name: str, job_id: str) -> None:
    """Delete the kept work, as KEEP_WORK_DAYS does later."""
    git("update-ref", "-d", f"refs/orchestrator/salvage/{job_id}", at=mirror_of(stack, name))
    in_store(stack, "DELETE FROM agent_job_kept_work WHERE job_id = ?", job_id)


@contextlib.contextmanager
def only_on_an_absent_machine(stack: Stack, name: str, job: Json) -> Iterator[None]:
    """Move a job's large work to an absent host, and let this host return under that name."""
    ref, mirror = f"refs/orchestrator/salvage/{job['id']}", mirror_of(stack, name)
    kept = git("rev-parse", ref, at=mirror).strip()
    change = "UPDATE agent_job_kept_work SET patch = NULL, host = ? WHERE job_id = ?"
    git("update-ref", ref.replace("salvage", "absent"), kept, at=mirror)
    git("update-ref", "-d", ref, at=mirror)
    in_store(stack, change, "absent-machine", job["id"])
    yield
    git("update-ref", ref, kept, at=mirror)
    in_store(stack, change, job["host"], job["id"])


@pytest.mark.failure(FailureCode.KEPT_WORK_GONE)
def test_work_that_expires_while_its_retry_waits(stack: Stack) -> None:
    client, name = stack.new_repository()
    stack.github.fail_next("git-receive-pack", status=403)
    job = failed_job(stack, client, stack.script(STEPS))
    signal_file = stack.signal_file()
    busy = [
        stack.post_job(client, stack.script([wait_for_file(signal_file), say("Done.")]))
        for _ in range(2)
    ]
    for other in busy:
        stack.wait_for(other, "working")
    retried = stack.call("POST", f"/jobs/{job['id']}/retry", {"from": "publish"}, 201)
    stack.wait_for(retried["id"], "waiting_for_slot")
    forget_work(stack, name, job["id"])
    signal_file.touch()
    failed_as(stack, retried["id"], FailureCode.KEPT_WORK_GONE)
    assert_unpublished(stack, name)
    assert kept_files(stack, retried["id"]) == kept_files(stack, job["id"]) == set()
    stack.call("POST", f"/jobs/{job['id']}/retry", {"from": "publish"}, 400)


@pytest.mark.failure(FailureCode.KEPT_WORK_ELSEWHERE)
def test_work_of_an_absent_host_is_published_when_it_returns(stack: Stack) -> None:
    client, name = stack.new_repository()
    stack.github.fail_next("git-receive-pack", status=403)
    job = failed_job(stack, client, stack.script(STEPS))
    publish = {"from": "publish"}
    with only_on_an_absent_machine(stack, name, job):
        early = stack.call("POST", f"/jobs/{job['id']}/retry", publish, 201)
        failed = failed_as(stack, early["id"], FailureCode.KEPT_WORK_ELSEWHERE)
        assert "only on the host absent-machine" in failed["error"]
        assert_unpublished(stack, name)
        told = stack.call("GET", f"/jobs/{early['id']}/patch", status=404)
        assert f"GET /jobs/{job['id']}/patch" in told["error"]
    late = stack.call("POST", f"/jobs/{early['id']}/retry", publish, 201)
    assert stack.wait_for(late["id"], "completed")["retry_of"] == job["id"]
    [pull] = stack.github.pull_requests(OWNER, name)
    assert pull.head == late["branchName"]


def test_a_worker_that_dies_while_it_publishes_kept_work_publishes_once(stack: Stack) -> None:
    client, name = stack.new_repository()
    stack.github.fail_next("git-receive-pack", status=403)
    job = failed_job(stack, client, stack.script(STEPS))
    stack.github.delay_next("pulls/create", 3)
    retried = stack.call("POST", f"/jobs/{job['id']}/retry", {"from": "publish"}, 201)
    stack.wait_for(retried["id"], lambda found: bool(found["head_sha"]))
    [worker] = stack.pids("cli.py worker")
    os.kill(worker, signal.SIGKILL)
    stack.wait_for(retried["id"], "completed", 90)
    assert len(stack.github.pull_requests(OWNER, name)) == 1
