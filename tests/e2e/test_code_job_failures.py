"""Each failure of a code job has an error and a remedy, and publishes no work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from domain.failures import FailureCode
from fakes.github.tokens import TokenGrant
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.steps import COMMIT_ALL, bash, say, wait_for_file, write
from tests.stack import OWNER, TOKEN, Json, Stack


@contextlib.contextmanager
def granted(stack: Stack, grant: TokenGrant | None) -> Iterator[None]:
    """Change the grant of the token. No job of another test may run at the same time."""
    before = stack.github.tokens.pop(TOKEN)
    if grant is not None:
        stack.github.tokens[TOKEN] = grant
    try:
        yield
    finally:
        stack.github.tokens[TOKEN] = before


@pytest.fixture(autouse=True)
def _no_faults_left(stack: Stack) -> Iterator[None]:
    yield
    stack.github.clear_faults()


def run_to_failure(
    stack: Stack, client: str, code: FailureCode, prompt: str | None = None, **body: str
) -> Json:
    prompt = prompt or stack.script([write("a.txt", "a"), say("Done.")])
    return failed_as(stack, stack.post_job(client, prompt, **body), code)


@pytest.mark.failure(FailureCode.BRANCH_MOVED)
@pytest.mark.parametrize("exists", [True, False])
def test_a_branch_that_another_user_moved_is_not_overwritten(stack: Stack, exists: bool):
    client, name = stack.new_repository()
    if exists:
        stack.github.commit(OWNER, name, "feature/x", {"theirs.txt": "1\n"}, "Begin")
    signal_file = stack.signal_file()
    prompt = stack.script([wait_for_file(signal_file), write("ours.txt", "ours\n"), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    stack.wait_for(job_id, "working")
    theirs = stack.github.commit(OWNER, name, "feature/x", {"theirs.txt": "2\n"}, "Move")
    signal_file.touch()
    job = failed_as(stack, job_id, FailureCode.BRANCH_MOVED)

    assert "Retry the job" in job["error"]
    assert stack.github.branches(OWNER, name)["feature/x"] == theirs
    assert_unpublished(stack, name, "feature/x")
    assert kept_files(stack, job_id) == {"ours.txt"}
    # The retry starts from the new state, on another branch.
    retried = stack.call("POST", f"/jobs/{job_id}/retry")
    assert retried["branchName"].startswith("feature/x-retry-")
    done = stack.wait_for(retried["id"], "completed")
    assert done["base_sha"] == theirs
    found = stack.github.read_file(OWNER, name, retried["branchName"], "theirs.txt")
    assert found == "2\n"
    [pull] = stack.github.pull_requests(OWNER, name)
    assert (pull.head, pull.base) == (retried["branchName"], "main")


@pytest.mark.failure(FailureCode.PUSH_REJECTED)
def test_a_protected_branch_refuses_the_push(stack: Stack):
    client, name = stack.new_repository()
    stack.github.repository(OWNER, name).protected.add("release")
    job = run_to_failure(stack, client, FailureCode.PUSH_REJECTED, branchName="release")

    assert "Protected branch" in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(FailureCode.GITHUB_PERMISSION)
def test_a_token_that_may_only_read_cannot_push(stack: Stack):
    client, name = stack.new_repository()
    with granted(stack, TokenGrant("reader", permission="read")):
        job = run_to_failure(stack, client, FailureCode.GITHUB_PERMISSION)
    assert "contents and pull requests" in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(FailureCode.GITHUB_AUTHENTICATION)
def test_a_token_that_github_refuses(stack: Stack):
    client, name = stack.new_repository()
    with granted(stack, None):
        job = run_to_failure(stack, client, FailureCode.GITHUB_AUTHENTICATION)
    assert "GITHUB_TOKEN" in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == set()


@pytest.mark.failure(FailureCode.REPOSITORY_NOT_FOUND)
def test_a_repository_that_does_not_exist(stack: Stack):
    client = stack.call("POST", "/clients", {"name": "Nobody"})["id"]
    body = {"githubOrg": OWNER, "githubRepo": "no-such-repository"}
    stack.call("POST", f"/clients/{client}/repository", body)
    job = run_to_failure(stack, client, FailureCode.REPOSITORY_NOT_FOUND)
    assert "no-such-repository" in job["error"]
    assert kept_files(stack, job["id"]) == set()


def test_a_repository_that_the_token_can_no_longer_see(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script([say("Nothing to do.")])
    stack.wait_for(stack.post_job(client, prompt), "completed")
    with granted(stack, TokenGrant("other", repositories=frozenset())):
        job = run_to_failure(stack, client, FailureCode.REPOSITORY_NOT_FOUND)
    assert job["attempt"] == 0
    assert_unpublished(stack, name)


@pytest.mark.failure(FailureCode.REPOSITORY_EMPTY)
def test_a_repository_without_commits(stack: Stack):
    client, name = stack.new_repository(files={})
    job = run_to_failure(stack, client, FailureCode.REPOSITORY_EMPTY)
    assert "first commit" in job["error"]
    assert stack.github.branches(OWNER, name) == {}
    assert kept_files(stack, job["id"]) == set()


@pytest.mark.failure(FailureCode.BASE_BRANCH_NOT_FOUND)
def test_a_default_branch_that_does_not_exist(stack: Stack):
    name = "trunk-site"
    stack.github.create_repository(OWNER, name, default_branch="trunk")
    client = stack.call("POST", "/clients", {"name": "Trunk"})["id"]
    body = {"githubOrg": OWNER, "githubRepo": name, "defaultBranch": "main"}
    stack.call("POST", f"/clients/{client}/repository", body)
    job = run_to_failure(stack, client, FailureCode.BASE_BRANCH_NOT_FOUND)
    assert "trunk" in job["error"]
    assert list(stack.github.branches(OWNER, name)) == ["trunk"]
    assert kept_files(stack, job["id"]) == set()


@pytest.mark.failure(FailureCode.BRANCH_CONFLICT)
def test_a_branch_name_that_clashes_with_another(stack: Stack):
    client, name = stack.new_repository()
    stack.github.commit(OWNER, name, "feature", {"a.txt": "1\n"}, "Begin")
    job = run_to_failure(stack, client, FailureCode.BRANCH_CONFLICT, branchName="feature/x")
    assert "beside the branch feature" in job["error"]
    assert_unpublished(stack, name, "feature")
    assert kept_files(stack, job["id"]) == set()


def test_the_default_branch_is_never_pushed_to(stack: Stack):
    client, name = stack.new_repository()
    job = run_to_failure(stack, client, FailureCode.BRANCH_CONFLICT, branchName="main")
    assert "Use another branch name" in job["error"]
    assert [entry.subject for entry in stack.github.log(OWNER, name, "main")] == ["Initial commit"]


@pytest.mark.failure(FailureCode.BRANCH_IN_USE)
def test_a_branch_in_use_by_another_worktree(stack: Stack):
    """The worktree belongs to a job of another orchestrator with the same directories."""
    client, name = stack.new_repository()
    other = stack.root / "worktrees" / OWNER / name / "other.git"
    other.mkdir(parents=True)
    other.with_suffix("").mkdir()
    (other / "HEAD").write_text("ref: refs/heads/feature/x\n")
    job = run_to_failure(stack, client, FailureCode.BRANCH_IN_USE, branchName="feature/x")
    assert "in use by job other" in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == set()


@pytest.mark.failure(FailureCode.GITHUB_UNAVAILABLE)
def test_github_does_not_answer(stack: Stack):
    client, name = stack.new_repository()
    stack.github.fail_next(f"/{OWNER}/{name}.git/info/refs", 503, times=99)
    job = run_to_failure(stack, client, FailureCode.GITHUB_UNAVAILABLE)
    assert "503" in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == set()


@pytest.mark.failure(FailureCode.GITHUB_REFUSED)
def test_a_pull_request_that_github_refuses(stack: Stack):
    client, name = stack.new_repository()
    reason = {"message": "Validation Failed", "errors": [{"message": "Too many open PRs"}]}
    stack.github.fail_next(f"/api/repos/{OWNER}/{name}/pulls", 200, body="[]")
    stack.github.fail_next(f"/api/repos/{OWNER}/{name}/pulls", 422, body=reason)
    job = run_to_failure(stack, client, FailureCode.GITHUB_REFUSED, branchName="feature/x")
    assert "Too many open PRs" in job["error"]
    assert_unpublished(stack, name, "feature/x")
    assert stack.github.branches(OWNER, name)["feature/x"] == job["head_sha"]
    assert kept_files(stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(FailureCode.GIT_FAILED)
def test_a_merge_that_claude_leaves_with_conflicts(stack: Stack):
    client, name = stack.new_repository()
    merging = (
        f"echo ours > app.py; {COMMIT_ALL} ours; git checkout -qb theirs HEAD~; "
        f"echo theirs > app.py; {COMMIT_ALL} theirs; git checkout -q -; git merge theirs; true"
    )
    job = run_to_failure(
        stack, client, FailureCode.GIT_FAILED, stack.script([bash(merging), say("Merged.")])
    )
    assert "unresolved conflicts in app.py." in job["error"]
    assert_unpublished(stack, name)
    assert kept_files(stack, job["id"]) == {"app.py"}


def test_a_killed_claude_resumes(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script([write("a.txt", "a"), bash("kill -9 $PPID"), say("Done after all.")])
    job = stack.wait_for(stack.post_job(client, prompt), "completed")
    assert (job["attempt"], job["exit_code"], job["result"]) == (2, 0, "Done after all.")
    assert len(stack.github.pull_requests(OWNER, name)) == 1


def test_a_lost_answer_of_github_causes_no_duplicate(stack: Stack):
    client, name = stack.new_repository()
    stack.github.fail_next(f"/{OWNER}/{name}.git/git-receive-pack", None, after=True)
    stack.github.fail_next(f"/api/repos/{OWNER}/{name}/pulls", 200, body="[]")
    stack.github.fail_next(f"/api/repos/{OWNER}/{name}/pulls", None, after=True)
    prompt = stack.script([write("a.txt", "a"), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    job = stack.wait_for(job_id, "completed")

    [pull] = stack.github.pull_requests(OWNER, name)
    assert (job["pr_number"], job["head_sha"]) == (pull.number, pull.head_sha)
    assert len(stack.github.log(OWNER, name, "feature/x")) == 2
    assert stack.github.pending_faults == []
