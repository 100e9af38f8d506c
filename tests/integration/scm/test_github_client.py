"""Errors of GitHub and their job failures, with the real PyGithub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from github import Github

from domain.errors import JobFailure
from domain.failures import FailureCode
from fakes.github.server import FakeGitHub
from fakes.ports import free_ports
from scm import github_client
from scm.github_client import GitHubClient
from scm.github_pull_requests import GitHub
from tests.integration.activities.worker_host import NAME, OWNER, READ_ONLY, TOKEN


def read(github: Github) -> str:
    return github.get_repo(f"{OWNER}/{NAME}").default_branch


def unknown(github: Github) -> str:
    return github.get_repo(f"{OWNER}/none").default_branch


def propose(head: str) -> Callable[[Github], Any]:
    def create(github: Github) -> Any:
        return github.get_repo(f"{OWNER}/{NAME}").create_pull(
            base="main", head=head, title="T", body="B"
        )

    return create


def access(forge: FakeGitHub, token: str | None = TOKEN) -> GitHubClient:
    return GitHubClient(lambda: token, forge.api_url)


async def failure(github: GitHubClient, use: Callable[[Github], Any] = read) -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await github.call(use)
    return caught.value


async def test_call_returns_the_result(forge: FakeGitHub) -> None:
    assert await access(forge).call(read) == "main"


async def test_without_a_token_no_request_is_sent(forge: FakeGitHub) -> None:
    refused = await failure(access(forge, token=None))
    assert (refused.code, refused.transient) == (FailureCode.GITHUB_TOKEN_MISSING, False)
    assert forge.requests == []


@pytest.mark.parametrize(
    ("status", "body", "code", "transient", "reason"),
    [
        (401, None, FailureCode.GITHUB_AUTHENTICATION, False, "Set GITHUB_TOKEN to a valid token"),
        (403, None, FailureCode.GITHUB_PERMISSION, False, "Forbidden"),
        (403, {"message": "Repository was archived so is read-only."},
         FailureCode.GITHUB_PERMISSION, False, "archived"),
        (404, None, FailureCode.REPOSITORY_NOT_FOUND, False, "Check the repository's owner"),
        (422, {"message": "Validation Failed", "errors": [{"field": "head", "code": "invalid"}]},
         FailureCode.GITHUB_REFUSED, False, "Validation Failed; head: invalid"),
        (422, {"message": "Validation Failed", "errors": ["odd", {"message": "No commits"}]},
         FailureCode.GITHUB_REFUSED, False, "Validation Failed; No commits"),
        (429, {"message": "API rate limit exceeded"},
         FailureCode.GITHUB_UNAVAILABLE, True, "rate limit"),
        (429, "slow down", FailureCode.GITHUB_UNAVAILABLE, True, "status 429"),
        (500, None, FailureCode.GITHUB_UNAVAILABLE, True, "status 500"),
        (502, "<html>Bad gateway</html>", FailureCode.GITHUB_UNAVAILABLE, True, "status 502"),
        (503, None, FailureCode.GITHUB_UNAVAILABLE, True, "status 503"),
        (None, None, FailureCode.GITHUB_UNAVAILABLE, True, "could not be reached"),
    ],
)  # fmt: skip
async def test_each_status_has_its_failure(
    forge: FakeGitHub,
    status: int | None,
    body: Any,
    code: FailureCode,
    transient: bool,
    reason: str,
) -> None:
    forge.fail_next("repos/get", status=status, body=body)
    refused = await failure(access(forge))
    assert (refused.code, refused.transient) == (code, transient)
    assert reason in refused.message
    assert len(forge.requests) == 1, "the workflow's policy retries, PyGithub does not"


@pytest.mark.parametrize("secondary", [False, True])
async def test_a_rate_limit_is_transient(forge: FakeGitHub, secondary: bool) -> None:
    forge.limit_next(secondary=secondary)
    refused = await failure(access(forge))
    assert (refused.code, refused.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)
    assert "rate limit" in refused.message
    assert await access(forge).call(read) == "main"


async def test_errors_of_the_fake_github_have_their_failures(forge: FakeGitHub) -> None:
    forge.commit(OWNER, NAME, "feat/x", {"a.txt": "1"}, "Add a")
    for token, use, code in (
        ("unknown", read, FailureCode.GITHUB_AUTHENTICATION),
        (READ_ONLY, propose("feat/x"), FailureCode.GITHUB_PERMISSION),
        (TOKEN, propose("no/branch"), FailureCode.GITHUB_REFUSED),
        (TOKEN, propose("main"), FailureCode.GITHUB_REFUSED),
        (TOKEN, unknown, FailureCode.REPOSITORY_NOT_FOUND),
    ):
        assert (await failure(access(forge, token), use)).code is code
    await access(forge).call(propose("feat/x"))
    refused = await failure(access(forge), propose("feat/x"))
    assert "already exists" in refused.message


async def test_a_timeout_and_a_refused_connection_are_unavailable(
    forge: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(github_client, "REQUEST_SECONDS", 1)
    forge.delay_next("repos/get", 1.5)
    away = GitHubClient(lambda: TOKEN, f"http://127.0.0.1:{free_ports(1)[0]}")
    for github in (access(forge), away):
        refused = await failure(github)
        assert (refused.code, refused.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)
        assert "could not be reached" in refused.message


async def test_viewer_returns_the_owner_of_the_token(
    forge: FakeGitHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert await GitHub(access(forge)).viewer() == "bot"
    assert await GitHub(access(forge, "ghp_unknown")).viewer() is None
    assert await GitHub(access(forge, None)).viewer() is None
    forge.fail_next("users/get-authenticated", status=None)
    assert await GitHub(access(forge)).viewer() is None
    assert TOKEN not in caplog.text
    assert "ghp_unknown" not in caplog.text
    assert FailureCode.GITHUB_AUTHENTICATION.sentence in caplog.text


@pytest.mark.parametrize("body", ["<html>Sign in</html>", "[]", "null", '{"login": 7}'])
async def test_viewer_ignores_an_invalid_response(forge: FakeGitHub, body: str) -> None:
    """For example from a proxy that asks for a login."""
    forge.fail_next("users/get-authenticated", status=200, body=body)
    assert await GitHub(access(forge)).viewer() is None


async def test_an_invalid_response_is_unavailable(forge: FakeGitHub) -> None:
    forge.fail_next("repos/get", status=200, body="null")
    refused = await failure(access(forge))
    assert (refused.code, refused.transient) == (FailureCode.GITHUB_UNAVAILABLE, True)
    assert "sent an invalid response" in refused.message
