"""Each way in which a code job fails says what happened and what to do, and publishes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.forge_access import TokenGrant
from tests.e2e.steps import bash, say, wait_for_file, write
from tests.stack import OWNER, TOKEN, Json, Stack, eventually


@contextlib.contextmanager
def granted(stack: Stack, grant: TokenGrant | None) -> Iterator[None]:
    """Change what the token may do; no job of another test runs meanwhile."""
    before = stack.forge.tokens.pop(TOKEN)
    if grant is not None:
        stack.forge.tokens[TOKEN] = grant
    try:
        yield
    finally:
        stack.forge.tokens[TOKEN] = before


def run_to_failure(stack: Stack, client: str, prompt: str | None = None, **body: str) -> Json:
    prompt = prompt or stack.script([write("a.txt", "a"), say("Done.")])
    job_id = stack.post_job(client, prompt, **body)
    job = stack.wait_for(job_id, "failed")
    assert job["completed_at"]
    eventually(
        lambda: job["error"] in stack.messages(job_id)[-1]["content"], 60, "the reason is told"
    )
    return job


@pytest.mark.parametrize("exists", [True, False])
def test_a_branch_that_somebody_moved_is_not_overwritten(
    stack: Stack, tmp_path: Path, exists: bool
):
    client, name = stack.new_repository()
    if exists:
        stack.forge.commit(OWNER, name, "feature/x", {"theirs.txt": "1\n"}, "Begin")
    gate = tmp_path / "go"
    prompt = stack.script([wait_for_file(gate), write("ours.txt", "ours\n"), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    stack.wait_for(job_id, "working")
    theirs = stack.forge.commit(OWNER, name, "feature/x", {"theirs.txt": "2\n"}, "Move")
    gate.touch()
    job = stack.wait_for(job_id, "failed")

    assert job["failure_code"] == "branch_moved"
    assert "Retry the job" in job["error"]
    assert stack.forge.branches(OWNER, name)["feature/x"] == theirs
    assert stack.forge.pull_requests(OWNER, name) == []
    # The retry starts from the new state, on a branch of its own.
    retried = stack.call("POST", f"/jobs/{job_id}/retry")
    assert retried["branchName"].startswith("feature/x-retry-")
    stack.wait_for(retried["id"], "completed")


def test_a_protected_branch_refuses_the_push(stack: Stack):
    client, name = stack.new_repository()
    stack.forge.repository(OWNER, name).protected.add("release")
    job = run_to_failure(stack, client, branchName="release")

    assert job["failure_code"] == "push_rejected"
    assert "Protected branch" in job["error"]
    assert list(stack.forge.branches(OWNER, name)) == ["main"]


def test_a_token_that_may_only_read_cannot_push(stack: Stack):
    client, name = stack.new_repository()
    with granted(stack, TokenGrant("reader", permission="read")):
        job = run_to_failure(stack, client)
    assert job["failure_code"] == "github_permission"
    assert "contents and pull requests" in job["error"]
    assert list(stack.forge.branches(OWNER, name)) == ["main"]


def test_a_token_that_github_refuses(stack: Stack):
    client, _ = stack.new_repository()
    with granted(stack, None):
        job = run_to_failure(stack, client)
    assert job["failure_code"] == "github_authentication"
    assert "GITHUB_TOKEN" in job["error"]


def test_a_repository_that_never_was(stack: Stack):
    client = stack.call("POST", "/clients", {"name": "Nobody"})["id"]
    body = {"githubOrg": OWNER, "githubRepo": "no-such-repository"}
    stack.call("POST", f"/clients/{client}/repository", body)
    job = run_to_failure(stack, client)
    assert job["failure_code"] == "repository_not_found"


def test_a_repository_that_the_token_no_longer_sees(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script([say("Nothing to do.")])
    stack.wait_for(stack.post_job(client, prompt), "completed")
    with granted(stack, TokenGrant("other", repositories=frozenset())):
        job = run_to_failure(stack, client)
    assert job["failure_code"] == "repository_not_found"
    assert job["attempt"] == 0


def test_a_repository_without_commits(stack: Stack):
    client, _ = stack.new_repository(files={})
    job = run_to_failure(stack, client)
    assert job["failure_code"] == "repository_empty"
    assert "first commit" in job["error"]


def test_a_default_branch_that_does_not_exist(stack: Stack):
    name = "trunk-site"
    stack.forge.create_repository(OWNER, name, default_branch="trunk")
    client = stack.call("POST", "/clients", {"name": "Trunk"})["id"]
    body = {"githubOrg": OWNER, "githubRepo": name, "defaultBranch": "main"}
    stack.call("POST", f"/clients/{client}/repository", body)
    job = run_to_failure(stack, client)
    assert job["failure_code"] == "base_branch_not_found"
    assert "trunk" in job["error"]


def test_a_branch_name_that_clashes_with_another(stack: Stack):
    client, name = stack.new_repository()
    stack.forge.commit(OWNER, name, "feature", {"a.txt": "1\n"}, "Begin")
    job = run_to_failure(stack, client, branchName="feature/x")
    assert job["failure_code"] == "branch_conflict"
    assert "beside the branch feature" in job["error"]


def test_the_default_branch_is_never_pushed_to(stack: Stack):
    client, name = stack.new_repository()
    job = run_to_failure(stack, client, branchName="main")
    assert job["failure_code"] == "branch_conflict"
    assert "Use another branch name" in job["error"]
    assert [entry.subject for entry in stack.forge.log(OWNER, name, "main")] == ["Initial commit"]


def test_a_pull_request_that_github_refuses(stack: Stack):
    client, name = stack.new_repository()
    reason = {"message": "Validation Failed", "errors": [{"message": "Too many open PRs"}]}
    stack.forge.fail_next(f"/api/repos/{OWNER}/{name}/pulls", 200, body="[]")
    stack.forge.fail_next(f"/api/repos/{OWNER}/{name}/pulls", 422, body=reason)
    job = run_to_failure(stack, client, branchName="feature/x")
    assert job["failure_code"] == "github_refused"
    assert "Too many open PRs" in job["error"]
    assert stack.forge.pull_requests(OWNER, name) == []
    assert stack.forge.branches(OWNER, name)["feature/x"] == job["head_sha"]


def test_a_key_that_anthropic_refuses(stack: Stack):
    client, name = stack.new_repository()
    refusal = {"status": 401, "message": "invalid x-api-key", "times": 99}
    refusal["headers"] = {"x-should-retry": "false"}
    job = run_to_failure(stack, client, stack.script([refusal]))  # type: ignore[list-item]
    assert job["failure_code"] == "claude_authentication"
    assert "ANTHROPIC_API_KEY" in job["error"]
    assert job["exit_code"] == 1
    assert list(stack.forge.branches(OWNER, name)) == ["main"]


def test_a_claude_that_is_killed_goes_on(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script([write("a.txt", "a"), bash("kill -9 $PPID"), say("Done after all.")])
    job = stack.wait_for(stack.post_job(client, prompt), "completed")
    assert (job["attempt"], job["exit_code"], job["result"]) == (2, 0, "Done after all.")
    assert len(stack.forge.pull_requests(OWNER, name)) == 1


def test_an_answer_of_github_that_is_lost_makes_nothing_twice(stack: Stack):
    client, name = stack.new_repository()
    stack.forge.fail_next(f"/{OWNER}/{name}.git/git-receive-pack", None, after=True)
    stack.forge.fail_next(f"/api/repos/{OWNER}/{name}/pulls", 200, body="[]")
    stack.forge.fail_next(f"/api/repos/{OWNER}/{name}/pulls", None, after=True)
    prompt = stack.script([write("a.txt", "a"), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    job = stack.wait_for(job_id, "completed")

    [pull] = stack.forge.pull_requests(OWNER, name)
    assert (job["pr_number"], job["head_sha"]) == (pull.number, pull.head_sha)
    assert len(stack.forge.log(OWNER, name, "feature/x")) == 2
    assert stack.forge.pending_faults == []
