"""Faults on demand: the errors of the client, and the effects on the fake GitHub."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import requests
from github import Auth, Github, GithubException, GithubRetry, RateLimitExceededException
from github.PullRequest import PullRequest

from fakes.github.git import git_environment, git_program
from fakes.github.server import FakeGitHub, TokenGrant


@pytest.fixture
def fake_github(tmp_path: Path) -> Iterator[FakeGitHub]:
    fake_github = FakeGitHub(tmp_path / "fake_github", {"writer-token": TokenGrant("bot")})
    fake_github.create_repository("acme", "shop")
    fake_github.commit("acme", "shop", "feat/x", {"a.txt": "a\n"}, "Add a")
    with fake_github.serve():
        yield fake_github


@pytest.fixture
def github(fake_github: FakeGitHub) -> Iterator[Github]:
    with_token = Auth.Token("writer-token")
    github = Github(
        auth=with_token,
        base_url=fake_github.api_url,
        lazy=True,
        timeout=5,
        retry=None,
        seconds_between_requests=None,
        seconds_between_writes=None,
    )
    yield github
    github.close()


def open_pull(github: Github) -> PullRequest:
    shop = github.get_repo("acme/shop")
    return shop.create_pull(base="main", head="feat/x", title="T")


def push(fake_github: FakeGitHub, branch: str = "pushed") -> CompletedProcess[str]:
    """Push feat/x under another name, from a bare repository of the client."""
    client = fake_github.root.parent / "client.git"
    helper = '!f() { test "$1" = get && echo username=x && echo password=writer-token; }; f'
    environment = git_environment({"credential.helper": helper}, {"GIT_TERMINAL_PROMPT": "0"})

    def git(*arguments: str) -> CompletedProcess[str]:
        return subprocess.run(
            [git_program(), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    if not client.exists():
        git("clone", "--bare", str(fake_github.root / "acme" / "shop.git"), str(client))
    url = f"{fake_github.url}/acme/shop.git"
    return git("-C", str(client), "push", url, f"feat/x:refs/heads/{branch}")


def test_a_failed_request_has_no_effect(fake_github: FakeGitHub, github: Github) -> None:
    fake_github.fail_next("pulls/create", status=502)
    with pytest.raises(GithubException) as caught:
        open_pull(github)
    assert caught.value.status == 502
    assert fake_github.pull_requests("acme", "shop") == []
    assert open_pull(github).number == 1


def test_the_answer_of_a_request_can_be_lost(fake_github: FakeGitHub, github: Github) -> None:
    fake_github.fail_next("pulls/create", status=504, after=True)
    with pytest.raises(GithubException) as caught:
        open_pull(github)
    assert caught.value.status == 504
    assert len(fake_github.pull_requests("acme", "shop")) == 1


@pytest.mark.parametrize(("after", "pulls"), [(False, 0), (True, 1)])
def test_the_connection_can_be_dropped(
    fake_github: FakeGitHub, github: Github, after: bool, pulls: int
) -> None:
    fake_github.fail_next("pulls/create", status=None, after=after)
    with pytest.raises(requests.ConnectionError):
        open_pull(github)
    assert len(fake_github.pull_requests("acme", "shop")) == pulls
    assert fake_github.requests[-1] == ("POST", "/api/repos/acme/shop/pulls", None)


def test_a_client_can_time_out_after_the_request_was_done(fake_github: FakeGitHub) -> None:
    fake_github.fail_next("pulls/create", after=True, delay=30)
    url = f"{fake_github.api_url}/repos/acme/shop/pulls"
    body = {"base": "main", "head": "feat/x", "title": "T"}
    headers = {"authorization": "Bearer writer-token"}
    with pytest.raises(requests.ReadTimeout):
        requests.post(url, json=body, headers=headers, timeout=1)
    assert len(fake_github.pull_requests("acme", "shop")) == 1


def test_a_request_can_be_delayed_and_then_succeed(fake_github: FakeGitHub, github: Github) -> None:
    fake_github.delay_next("users/get-authenticated", 0.3)
    started = time.monotonic()
    assert github.get_user().login == "bot"
    assert time.monotonic() - started >= 0.3


def test_faults_apply_in_order_and_as_often_as_requested(fake_github: FakeGitHub) -> None:
    fake_github.fail_next("rate-limit/get", status=500, times=2)
    fake_github.fail_next("/api/rate_*", status=503, headers={"retry-after": "7"}, body="busy")
    answers = [requests.get(f"{fake_github.api_url}/rate_limit", timeout=5) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 500, 503, 200]
    assert answers[0].json()["message"] == "Internal Server Error"
    assert (answers[2].headers["retry-after"], answers[2].text) == ("7", "busy")
    assert all(answer.headers["x-github-request-id"] for answer in answers)
    assert fake_github.pending_faults == []


def test_pending_faults_can_be_listed_and_cleared(fake_github: FakeGitHub, github: Github) -> None:
    fake_github.fail_next("users/*", times=2)
    fake_github.fail_next("pulls/none")
    with pytest.raises(GithubException):
        github.get_user().login  # noqa: B018 - PyGithub asks when the attribute is read
    assert [(fault.pattern, fault.times) for fault in fake_github.pending_faults] == [
        ("users/*", 1),
        ("pulls/none", 1),
    ]
    fake_github.clear_faults()
    assert github.get_user().login == "bot"


@pytest.mark.parametrize("secondary", [False, True])
def test_pygithub_recognizes_the_rate_limits(
    fake_github: FakeGitHub, github: Github, secondary: bool
) -> None:
    fake_github.limit_next(secondary=secondary, seconds=60)
    with pytest.raises(RateLimitExceededException) as caught:
        open_pull(github)
    headers = caught.value.headers or {}
    if secondary:
        assert headers["retry-after"] == "60"
    else:
        assert headers["x-ratelimit-remaining"] == "0"
        assert 0 < int(headers["x-ratelimit-reset"]) - time.time() <= 60


def test_pygithub_waits_for_a_secondary_limit_by_itself(fake_github: FakeGitHub) -> None:
    fake_github.limit_next("pulls/create", secondary=True, seconds=1)
    github = Github(
        auth=Auth.Token("writer-token"),
        base_url=fake_github.api_url,
        lazy=True,
        retry=GithubRetry(total=1),
    )
    started = time.monotonic()
    assert open_pull(github).number == 1
    github.close()
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("operation", ["git-receive-pack:refs", "git-receive-pack"])
def test_a_push_can_fail_before_anything_moved(fake_github: FakeGitHub, operation: str) -> None:
    fake_github.fail_next(operation, status=503)
    failed = push(fake_github)
    assert failed.returncode != 0
    assert "503" in failed.stderr
    assert "pushed" not in fake_github.branches("acme", "shop")
    assert push(fake_github).returncode == 0


def test_a_push_can_be_dropped_before_anything_moved(fake_github: FakeGitHub) -> None:
    fake_github.fail_next("git-receive-pack", status=None)
    assert push(fake_github).returncode != 0
    assert "pushed" not in fake_github.branches("acme", "shop")
    assert push(fake_github).returncode == 0


def test_a_push_can_be_dropped_after_the_refs_were_updated(fake_github: FakeGitHub) -> None:
    fake_github.fail_next("git-receive-pack", status=None, after=True)
    assert push(fake_github).returncode != 0
    branches = fake_github.branches("acme", "shop")
    assert branches["pushed"] == branches["feat/x"]
    again = push(fake_github)
    assert again.returncode == 0
    assert "Everything up-to-date" in again.stderr


def test_a_fetch_can_fail(fake_github: FakeGitHub) -> None:
    fake_github.fail_next("git-upload-pack*", status=500)
    url = f"{fake_github.url}/acme/shop.git/info/refs?service=git-upload-pack"
    assert requests.get(url, auth=("x", "writer-token"), timeout=5).status_code == 500
    assert requests.get(url, auth=("x", "writer-token"), timeout=5).status_code == 200
