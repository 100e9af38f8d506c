"""The fake GitHub: starting, stopping and inspecting it."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from fakes.github.git_http import git_operation
from fakes.github.server import FakeGitHub, TokenGrant

TOKEN = "writer-token"
ODD_NAME = 'd/"a"\n\\.txt'


@pytest.fixture
def fake_github(tmp_path: Path) -> FakeGitHub:
    fake_github = FakeGitHub(tmp_path, {TOKEN: TokenGrant("bot")})
    fake_github.create_repository("acme", "shop")
    return fake_github


@pytest.fixture
def url(fake_github: FakeGitHub) -> Iterator[str]:
    with fake_github.serve() as url:
        yield url


def running_git() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if "git" in child.name() else []
    return found


def wait_until_no_git_runs() -> None:
    deadline = time.monotonic() + 10
    while running := running_git():
        assert time.monotonic() < deadline, running
        time.sleep(0.01)


def unfinished_push(url: str) -> socket.socket:
    """Start a push whose body never ends, and return its connection once git waits for it."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    credentials = base64.b64encode(f"x:{TOKEN}".encode()).decode()
    connection.sendall(
        b"POST /acme/shop.git/git-receive-pack HTTP/1.1\r\nhost: fake_github\r\n"
        b"content-type: application/x-git-receive-pack-request\r\n"
        b"authorization: Basic %b\r\ncontent-length: 1000000\r\n\r\n0" % credentials.encode()
    )
    deadline = time.monotonic() + 10
    while not running_git():
        assert time.monotonic() < deadline, "git did not start"
        time.sleep(0.01)
    return connection


def test_it_starts_and_stops_quickly_and_completely(fake_github: FakeGitHub) -> None:
    threads = threading.active_count()
    started = time.monotonic()
    with fake_github.serve() as url:
        assert time.monotonic() - started < 2
        assert url == fake_github.url
        assert fake_github.api_url == f"{url}/api"
        assert requests.get(url, timeout=5).status_code == 404
    assert threading.active_count() == threads
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_it_serves_on_a_given_port_repeatedly(fake_github: FakeGitHub) -> None:
    with fake_github.serve() as first:
        pass
    port = int(first.rsplit(":", 1)[1])
    with fake_github.serve(port) as second:
        assert second == first
        assert requests.get(f"{second}/api/rate_limit", timeout=5).status_code == 200


def test_it_ends_git_when_it_stops(fake_github: FakeGitHub) -> None:
    with fake_github.serve() as url:
        connection = unfinished_push(url)
    connection.close()
    wait_until_no_git_runs()


def test_it_ends_git_when_the_client_goes_away(fake_github: FakeGitHub, url: str) -> None:
    unfinished_push(url).close()
    wait_until_no_git_runs()
    objects = fake_github.root / "acme" / "shop.git" / "objects"
    assert not list(objects.glob("*incoming*"))
    assert fake_github.branches("acme", "shop").keys() == {"main"}


def test_it_stops_during_a_delay(fake_github: FakeGitHub) -> None:
    fake_github.delay_next("rate-limit/get", 60)
    with fake_github.serve() as url, pytest.raises(requests.ReadTimeout):
        requests.get(f"{url}/api/rate_limit", timeout=0.2)


def test_the_log_has_no_secrets(fake_github: FakeGitHub, url: str) -> None:
    requests.get(f"{url}/api/user", auth=("x", TOKEN), timeout=5)
    requests.get(f"{url}/api/user?access_token={TOKEN}", timeout=5)
    assert fake_github.requests == [("GET", "/api/user", 200), ("GET", "/api/user", 401)]
    assert TOKEN not in repr(fake_github) + repr(fake_github.requests) + repr(vars(fake_github.app))


def test_every_reply_has_githubs_headers(fake_github: FakeGitHub, url: str) -> None:
    for token, status in ((TOKEN, 200), ("unknown-token", 401)):
        headers = {"authorization": f"token {token}"}
        answer = requests.get(f"{url}/api/user", headers=headers, timeout=5)
        assert answer.status_code == status
        names = ("limit", "remaining", "reset", "used", "resource")
        assert {f"x-ratelimit-{name}" for name in names} <= answer.headers.keys()
        assert answer.headers["x-github-request-id"]
        assert answer.headers.get("x-oauth-scopes") == ("repo" if status == 200 else None)


@pytest.mark.parametrize("presented", ["Basic !", "Basic eDo=", "Negotiate x", "token", "token é"])
def test_unreadable_credentials_are_refused(url: str, presented: str) -> None:
    headers = {"authorization": presented.encode()}
    assert requests.get(f"{url}/api/user", headers=headers, timeout=5).status_code == 401


def test_files_are_committed_changed_and_deleted(fake_github: FakeGitHub) -> None:
    first = fake_github.commit(
        "acme", "shop", "x", {ODD_NAME: b"1", "b.txt": "2\n"}, "First\n\nWhy"
    )
    second = fake_github.commit("acme", "shop", "x", {"b.txt": None, "README.md": "new"}, "Second")
    assert [entry[:2] for entry in fake_github.log("acme", "shop", "x")[:2]] == [
        (second, "Second"),
        (first, "First"),
    ]
    assert fake_github.read_file("acme", "shop", "x", ODD_NAME) == "1"
    assert fake_github.read_file("acme", "shop", first, "b.txt") == "2\n"
    with pytest.raises(RuntimeError, match=r"b\.txt"):
        fake_github.read_file("acme", "shop", "x", "b.txt")


def test_an_unknown_repository_is_named(fake_github: FakeGitHub) -> None:
    with pytest.raises(LookupError, match="no repository acme/none"):
        fake_github.branches("acme", "none")
    with pytest.raises(ValueError, match="already"):
        fake_github.create_repository("Acme", "Shop")


@pytest.mark.parametrize(
    ("owner", "name"),
    [("api", "x"), ("..", "x"), ("a", ".."), ("a/b", "c"), ("a", "b c"), ("-a", "b"), ("a", "")],
)
def test_names_are_checked(fake_github: FakeGitHub, owner: str, name: str) -> None:
    with pytest.raises(ValueError, match="not a repository name"):
        fake_github.create_repository(owner, name)


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("GET", "/a/b.git/info/refs", "service=git-upload-pack", "git-upload-pack:refs"),
        ("GET", "/a/b/info/refs", "service=git-receive-pack", "git-receive-pack:refs"),
        ("POST", "/a/b.git/git-receive-pack", "", "git-receive-pack"),
        ("GET", "/a/b.git/info/refs", "", None),
        ("GET", "/a/b.git/info/refs", "service=git-evil", None),
        ("GET", "/a/b.git/git-receive-pack", "", None),
        ("GET", "/a/b.git/HEAD", "", None),
        ("GET", "/a/../b.git/info/refs", "service=git-upload-pack", None),
    ],
)
def test_only_smart_git_requests_are_git_requests(
    method: str, path: str, query: str, operation: str | None
) -> None:
    assert git_operation(method, path, query) == operation
