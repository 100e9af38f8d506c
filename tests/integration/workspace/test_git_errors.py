from __future__ import annotations

import errno
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from fakes.github.server import FakeGitHub
from tests.integration.workspace.conftest import NAME, OWNER, READ_ONLY, TOKEN, Host
from workspace.git.credentials import GitCredentials, write_token_file
from workspace.git.errors import as_job_failures, failure_of, is_damage
from workspace.git.runner import GitError

URL = "https://github.com/o/r.git"


def failure(command: str, stderr: str, exit_code: int | None = 128) -> JobFailure:
    credentials = GitCredentials("https://github.com", Path("/nonexistent"))
    return failure_of(GitError([command], exit_code, stderr), credentials, "Trying")


def reply(status: int) -> str:
    return f"fatal: unable to access '{URL}': The requested URL returned error: {status}"


def rejected(reason: str) -> str:
    return f" ! [remote rejected] a/b -> a/b ({reason})"


LOCK = "cannot lock ref 'refs/heads/a/b': "
FORBIDDEN = LOCK + "'refs/heads/a' exists; cannot create 'refs/heads/a/b'"
RACED = LOCK + "is at 1 but expected 2"
WORKFLOW = (
    "refusing to allow a Personal Access Token to create or update workflow "
    "`.github/workflows/ci.yml` without `workflow` scope"
)
FINAL = {
    FailureCode.GITHUB_AUTHENTICATION: [
        f"fetch: remote: Invalid username or token.\nfatal: Authentication failed for '{URL}'",
        f"fetch: fatal: could not read Username for '{URL}': terminal prompts disabled",
        f"push: {reply(401)}",
    ],
    FailureCode.GITHUB_PERMISSION: [
        f"push: remote: Permission to o/r.git denied to bot.\n{reply(403)}",
        f"push: remote: Write access to repository not granted.\n{reply(403)}",
        f"push: {rejected(WORKFLOW)}",
    ],
    FailureCode.REPOSITORY_NOT_FOUND: [
        f"fetch: remote: Repository not found.\nfatal: repository '{URL}/' not found",
        "fetch: fatal: '/srv/r.git' does not appear to be a git repository",
        f"fetch: {reply(404)}",
    ],
    FailureCode.BRANCH_MOVED: [
        "push:  ! [rejected]        b -> b (stale info)",
        "push:  ! [rejected]        b -> b (non-fast-forward)",
        "push:  ! [rejected]        b -> b (fetch first)",
        f"push: {rejected(RACED)}",
        f"push: remote: error: {RACED}\n{rejected('failed to update ref')}",
    ],
    FailureCode.BRANCH_CONFLICT: [
        f"push: {rejected(FORBIDDEN)}",
        f"push: {rejected('directory file conflict')}",
        f"push: remote: error: {FORBIDDEN}\n{rejected('failed to update ref')}",
    ],
    FailureCode.PUSH_REJECTED: [
        f"push: remote: error: GH006: Protected.\n{rejected('protected branch hook declined')}",
        f"push: remote: error: 404, not found\n{rejected('pre-receive hook declined')}",
        f"push: remote: fatal: No space left on device\n{rejected('unpacker error')}",
    ],
    FailureCode.DISK_FULL: [
        "fetch: error: unable to write file x: No space left on device",
        "add: fatal: sha1 file '/w/index.lock' write error. Out of diskspace",
        "reset: error: unable to write file README.md\nfatal: Could not reset index file",
        "worktree: fatal: cannot update ref 'refs/heads/b': couldn't write '/m/refs/heads/b.lock'",
        "init: error: failed to write new configuration file /m/config.lock",
        "add: fatal: unable to write new index file",
    ],
    FailureCode.GIT_FAILED: [
        f"commit: {reply(403)}",
        "commit: fatal: something else",
        "add: error: unable to write file x: Permission denied",
    ],
}
PASSING = {
    FailureCode.GITHUB_UNAVAILABLE: [
        f"fetch: fatal: unable to access '{URL}': Could not resolve host: github.com",
        f"fetch: fatal: unable to access '{URL}': Failed to connect to github.com port 443",
        f"fetch: {reply(502)}",
        f"fetch: {reply(429)}",
        "fetch: error: RPC failed; curl 18 transfer closed\nfatal: early EOF",
        "push: error: RPC failed; HTTP 500 curl 22\nsend-pack: unexpected disconnect",
        "push: fatal: the remote end hung up unexpectedly",
        f"push: {rejected('Internal Server Error')}",
        f"push: {rejected('failed to update ref')}",
        "fetch: timed out after 3600 s",
    ],
    FailureCode.BRANCH_IN_USE: [
        "worktree: fatal: 'b' is already checked out at '/w/1'",
        "worktree: fatal: 'b' is already used by worktree at '/w/1'",
    ],
    FailureCode.GIT_FAILED: [
        "update-ref: fatal: Unable to create '/m/packed-refs.lock': File exists."
    ],
}


def cases(table: dict[FailureCode, list[str]]) -> list[tuple[FailureCode, str]]:
    return [(code, text) for code, texts in table.items() for text in texts]


@pytest.mark.parametrize(("code", "text"), cases(FINAL))
def test_permanent_errors(code: FailureCode, text: str) -> None:
    command, _, stderr = text.partition(": ")
    found = failure(command, stderr)
    assert (found.code, found.transient) == (code, False)


@pytest.mark.parametrize(("code", "text"), cases(PASSING))
def test_transient_errors(code: FailureCode, text: str) -> None:
    command, _, stderr = text.partition(": ")
    found = failure(command, stderr)
    assert (found.code, found.transient) == (code, True)


def test_local_time_limit_is_transient() -> None:
    found = failure("add", "timed out after 120 s", None)
    assert (found.code, found.transient) == (FailureCode.GIT_FAILED, True)


def test_message_contains_the_remedy_and_the_output_of_git() -> None:
    stderr = (
        "hint: noise\nTo github.com\nremote: \nremote: A rule forbids it.\n"
        " ! [remote rejected] b -> b (hook declined)\nerror: failed to push some refs"
    )
    message = failure("push", stderr).message
    assert message == (
        f"Trying failed. {FailureCode.PUSH_REJECTED.sentence} Git said: "
        "remote: A rule forbids it. | ! [remote rejected] b -> b (hook declined)"
    )


def test_message_has_a_length_limit() -> None:
    assert len(failure("push", "word " * 5000).message) < 1500


def test_message_does_not_contain_the_token(tmp_path: Path) -> None:
    credentials = GitCredentials("https://github.com", write_token_file(tmp_path, "sup3r-s3cret"))
    error = GitError(["push"], 1, "remote: bad sup3r-s3cret\nfatal: https://u:p4ss@github.com/ no")
    message = failure_of(error, credentials, "Pushing").message
    assert "sup3r-s3cret" not in message
    assert "p4ss" not in message


def test_full_disk_is_reported_for_os_errors() -> None:
    with (
        pytest.raises(JobFailure) as caught,
        as_job_failures(GitCredentials("https://github.com"), "Writing"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.code is FailureCode.DISK_FULL


def test_other_os_errors_are_not_converted() -> None:
    with (
        pytest.raises(PermissionError),
        as_job_failures(GitCredentials("https://github.com"), "Writing"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("stderr", "damaged"),
    [
        ("fatal: not a git repository: '/m'", True),
        ("error: object file /m/objects/1f/2 is empty", True),
        ("fatal: bad object 1234", True),
        ("error: refs/remotes/origin/x does not point to a valid object!", True),
        ("remote: fatal: bad object 1234", False),
        ("fatal: Unable to create '/m/packed-refs.lock': File exists.", False),
        ("fatal: repository 'https://github.com/o/r/' not found", False),
    ],
)
def test_damaged_mirror_is_recognized(stderr: str, damaged: bool) -> None:
    assert is_damage(GitError(["fetch"], 128, stderr)) is damaged


async def fetch_failure(host: Host) -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await host.mirrors.fetch(OWNER, NAME)
    assert TOKEN not in caught.value.message
    return caught.value


async def test_wrong_token(github: FakeGitHub, tmp_path: Path) -> None:
    found = await fetch_failure(Host(tmp_path, github, "ghp_wrong0000000000000000000000000000000"))
    assert found.code is FailureCode.GITHUB_AUTHENTICATION


async def test_missing_token(github: FakeGitHub, tmp_path: Path) -> None:
    found = await fetch_failure(Host(tmp_path, github, None))
    assert found.code is FailureCode.GITHUB_TOKEN_MISSING


async def test_public_repository_needs_no_token(github: FakeGitHub, tmp_path: Path) -> None:
    github.repository(OWNER, NAME).private = False
    await Host(tmp_path, github, None).mirrors.fetch(OWNER, NAME)


async def test_missing_repository(host: Host) -> None:
    with pytest.raises(JobFailure) as caught:
        await host.mirrors.fetch(OWNER, "Nothing")
    assert caught.value.code is FailureCode.REPOSITORY_NOT_FOUND
    assert not host.mirrors.path(OWNER, "Nothing").exists()
    assert not list(host.mirrors.scratch.iterdir())


@pytest.mark.parametrize("status", [500, 502, 503, 429, None])
async def test_server_error_is_transient(host: Host, status: int | None) -> None:
    host.github.fail_next("git-upload-pack*", status, times=5)
    found = await fetch_failure(host)
    assert (found.code, found.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)
    host.github.clear_faults()
    await host.mirrors.fetch(OWNER, NAME)


async def test_unreachable_server(github: FakeGitHub, tmp_path: Path) -> None:
    github.url = "http://127.0.0.1:1"
    found = await fetch_failure(Host(tmp_path, github))
    assert (found.code, found.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)


async def test_read_only_token_cannot_push(github: FakeGitHub, tmp_path: Path) -> None:
    host = Host(tmp_path, github, READ_ONLY)
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    with pytest.raises(JobFailure) as caught:
        await host.publish(worktree)
    assert caught.value.code is FailureCode.GITHUB_PERMISSION


async def test_protected_branch_is_refused(host: Host) -> None:
    host.github.repository(OWNER, NAME).protected.add("safe")
    worktree = await host.start("job", "safe")
    (worktree.path / "new").write_text("x")
    with pytest.raises(JobFailure) as caught:
        await host.publish(worktree)
    assert caught.value.code is FailureCode.PUSH_REJECTED
    assert "GH006" in caught.value.message


async def test_archived_repository_is_refused(host: Host) -> None:
    worktree = await host.start("job")
    host.github.repository(OWNER, NAME).archived = True
    (worktree.path / "new").write_text("x")
    with pytest.raises(JobFailure) as caught:
        await host.publish(worktree)
    assert caught.value.code is FailureCode.GITHUB_PERMISSION
