from __future__ import annotations

import errno
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from fakes.github.server import FakeGitHub
from tests.integration.workspace.conftest import NAME, OWNER, READ_ONLY, TOKEN, Room
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
def test_what_no_repetition_can_change(code: FailureCode, text: str) -> None:
    command, _, stderr = text.partition(": ")
    found = failure(command, stderr)
    assert (found.code, found.transient) == (code, False)


@pytest.mark.parametrize(("code", "text"), cases(PASSING))
def test_what_may_pass(code: FailureCode, text: str) -> None:
    command, _, stderr = text.partition(": ")
    found = failure(command, stderr)
    assert (found.code, found.transient) == (code, True)


def test_a_local_time_limit_may_be_tried_again() -> None:
    found = failure("add", "timed out after 120 s", None)
    assert (found.code, found.transient) == (FailureCode.GIT_FAILED, True)


def test_the_message_says_what_to_do_and_what_git_said() -> None:
    stderr = (
        "hint: noise\nTo github.com\nremote: \nremote: A rule forbids it.\n"
        " ! [remote rejected] b -> b (hook declined)\nerror: failed to push some refs"
    )
    message = failure("push", stderr).message
    assert message == (
        f"Trying failed. {FailureCode.PUSH_REJECTED.sentence} Git said: "
        "remote: A rule forbids it. | ! [remote rejected] b -> b (hook declined)"
    )


def test_the_message_is_bounded() -> None:
    assert len(failure("push", "word " * 5000).message) < 1500


def test_the_message_never_has_the_token_in_it(tmp_path: Path) -> None:
    credentials = GitCredentials("https://github.com", write_token_file(tmp_path, "sup3r-s3cret"))
    error = GitError(["push"], 1, "remote: bad sup3r-s3cret\nfatal: https://u:p4ss@github.com/ no")
    message = failure_of(error, credentials, "Pushing").message
    assert "sup3r-s3cret" not in message
    assert "p4ss" not in message


def test_a_full_disk_is_named_when_it_is_not_git_that_noticed() -> None:
    with (
        pytest.raises(JobFailure) as caught,
        as_job_failures(GitCredentials("https://github.com"), "Writing"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.code is FailureCode.DISK_FULL


def test_other_operating_system_errors_pass_through() -> None:
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
def test_a_damaged_mirror_is_told_from_other_trouble(stderr: str, damaged: bool) -> None:
    assert is_damage(GitError(["fetch"], 128, stderr)) is damaged


async def refusal(room: Room) -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await room.mirrors.fetch(OWNER, NAME)
    assert TOKEN not in caught.value.message
    return caught.value


async def test_a_wrong_token(forge: FakeGitHub, tmp_path: Path) -> None:
    found = await refusal(Room(tmp_path, forge, "ghp_wrong0000000000000000000000000000000"))
    assert found.code is FailureCode.GITHUB_AUTHENTICATION


async def test_no_token(forge: FakeGitHub, tmp_path: Path) -> None:
    found = await refusal(Room(tmp_path, forge, None))
    assert found.code is FailureCode.GITHUB_TOKEN_MISSING


async def test_a_public_repository_needs_no_token(forge: FakeGitHub, tmp_path: Path) -> None:
    forge.repository(OWNER, NAME).private = False
    await Room(tmp_path, forge, None).mirrors.fetch(OWNER, NAME)


async def test_a_repository_that_is_not_there(room: Room) -> None:
    with pytest.raises(JobFailure) as caught:
        await room.mirrors.fetch(OWNER, "Nothing")
    assert caught.value.code is FailureCode.REPOSITORY_NOT_FOUND
    assert not room.mirrors.path(OWNER, "Nothing").exists()
    assert not list(room.mirrors.scratch.iterdir())


@pytest.mark.parametrize("status", [500, 502, 503, 429, None])
async def test_a_server_in_trouble(room: Room, status: int | None) -> None:
    room.forge.fail_next("git-upload-pack*", status, times=5)
    found = await refusal(room)
    assert (found.code, found.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)
    room.forge.clear_faults()
    await room.mirrors.fetch(OWNER, NAME)


async def test_a_server_that_is_away(forge: FakeGitHub, tmp_path: Path) -> None:
    forge.url = "http://127.0.0.1:1"
    found = await refusal(Room(tmp_path, forge))
    assert (found.code, found.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)


async def test_a_token_that_may_only_read(forge: FakeGitHub, tmp_path: Path) -> None:
    room = Room(tmp_path, forge, READ_ONLY)
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    with pytest.raises(JobFailure) as caught:
        await room.publish(worktree)
    assert caught.value.code is FailureCode.GITHUB_PERMISSION


async def test_a_protected_branch(room: Room) -> None:
    room.forge.repository(OWNER, NAME).protected.add("safe")
    worktree = await room.start("job", "safe")
    (worktree.path / "new").write_text("x")
    with pytest.raises(JobFailure) as caught:
        await room.publish(worktree)
    assert caught.value.code is FailureCode.PUSH_REJECTED
    assert "GH006" in caught.value.message


async def test_an_archived_repository(room: Room) -> None:
    worktree = await room.start("job")
    room.forge.repository(OWNER, NAME).archived = True
    (worktree.path / "new").write_text("x")
    with pytest.raises(JobFailure) as caught:
        await room.publish(worktree)
    assert caught.value.code is FailureCode.GITHUB_PERMISSION
