"""Real git against the fake GitHub: clones and pushes, allowed and refused."""

from __future__ import annotations

import random
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from fakes.github.git import git_environment, git_program
from fakes.github.server import FakeGitHub, TokenGrant

Git = Callable[..., CompletedProcess[str]]
HELPER = '!f() { test "$1" = get && { echo username=x; echo "password=$PRESENTED"; }; }; f'


@pytest.fixture
def fake_github(tmp_path: Path) -> Iterator[FakeGitHub]:
    tokens = {
        "writer-token": TokenGrant("bot"),
        "reader-token": TokenGrant("reader", "read"),
        "narrow-token": TokenGrant("narrow", repositories=frozenset({"acme/elsewhere"})),
    }
    fake_github = FakeGitHub(tmp_path / "fake_github", tokens)
    fake_github.create_repository("acme", "shop")
    with fake_github.serve():
        yield fake_github


@pytest.fixture
def git(tmp_path: Path) -> Git:
    def run(*arguments: str, token: str | None = None, at: str = ".") -> CompletedProcess[str]:
        """Run git in a directory below tmp_path, with a token for its credential prompt."""
        helper = {"credential.helper": HELPER} if token else {}
        settings = {"user.name": "Ann", "user.email": "ann@example.invalid", **helper}
        variables = {"PRESENTED": token or "", "GIT_TERMINAL_PROMPT": "0"}
        environment = git_environment(settings, variables)
        return subprocess.run(
            [git_program(), *arguments],
            cwd=tmp_path / at,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def clone(
    fake_github: FakeGitHub, git: Git, *options: str, token: str | None = "writer-token"
) -> None:
    """Clone acme/shop into the directory `work`."""
    cloned = git("clone", *options, f"{fake_github.url}/acme/shop.git", "work", token=token)
    assert cloned.returncode == 0, cloned.stderr


def commit_file(tmp_path: Path, git: Git, name: str, content: bytes, at: str = "work") -> None:
    (tmp_path / at / name).write_bytes(content)
    git("add", ".", at=at)
    assert git("commit", "-m", f"Add {name}", at=at).returncode == 0


def test_a_push_is_visible_at_once(tmp_path: Path, fake_github: FakeGitHub, git: Git) -> None:
    clone(fake_github, git)
    commit_file(tmp_path, git, "ü.txt", b"hello\n")
    pushed = git("push", "origin", "HEAD:refs/heads/feat/x", token="writer-token", at="work")
    assert pushed.returncode == 0, pushed.stderr
    sha = git("rev-parse", "HEAD", at="work").stdout.strip()
    assert fake_github.branches("acme", "shop")["feat/x"] == sha
    assert fake_github.log("acme", "shop", "feat/x")[0] == (sha, "Add ü.txt", "Ann")
    assert fake_github.read_file("acme", "shop", "feat/x", "ü.txt") == "hello\n"


def test_a_commit_from_outside_can_be_fetched(fake_github: FakeGitHub, git: Git) -> None:
    clone(fake_github, git)
    sha = fake_github.commit("acme", "shop", "main", {"new.txt": "n"}, "From outside")
    assert git("pull", token="writer-token", at="work").returncode == 0
    assert git("rev-parse", "HEAD", at="work").stdout.strip() == sha


def test_the_suffix_of_the_url_may_be_left_out(fake_github: FakeGitHub, git: Git) -> None:
    listed = git("ls-remote", f"{fake_github.url}/acme/shop", token="writer-token")
    assert fake_github.branches("acme", "shop")["main"] in listed.stdout


def test_an_unknown_token_may_not_clone(fake_github: FakeGitHub, git: Git) -> None:
    refused = git("clone", f"{fake_github.url}/acme/shop.git", token="unknown-token")
    assert refused.returncode == 128
    assert "Authentication failed" in refused.stderr
    assert "unknown-token" not in refused.stderr
    assert {status for _, _, status in fake_github.requests} == {401}


def test_without_a_token_git_asks_for_one(fake_github: FakeGitHub, git: Git) -> None:
    refused = git("clone", f"{fake_github.url}/acme/shop.git")
    assert refused.returncode == 128
    assert "could not read Username" in refused.stderr


def test_a_public_repository_is_cloned_without_a_token(fake_github: FakeGitHub, git: Git) -> None:
    fake_github.repository("acme", "shop").private = False
    clone(fake_github, git, token=None)
    refused = git("push", "origin", "HEAD:refs/heads/x", at="work")
    assert "could not read Username" in refused.stderr


@pytest.mark.parametrize(("token", "name"), [("narrow-token", "shop"), ("writer-token", "none")])
def test_an_invisible_repository_does_not_exist(
    fake_github: FakeGitHub, git: Git, token: str, name: str
) -> None:
    refused = git("clone", f"{fake_github.url}/acme/{name}.git", token=token)
    assert refused.returncode == 128
    assert "remote: Repository not found." in refused.stderr


def test_a_read_only_token_may_clone_and_not_push(fake_github: FakeGitHub, git: Git) -> None:
    clone(fake_github, git, token="reader-token")
    refused = git("push", "origin", "HEAD:refs/heads/x", token="reader-token", at="work")
    assert refused.returncode == 128
    assert "Permission to acme/shop.git denied to reader." in refused.stderr
    assert "The requested URL returned error: 403" in refused.stderr
    assert fake_github.branches("acme", "shop").keys() == {"main"}


def test_an_archived_repository_is_read_only(fake_github: FakeGitHub, git: Git) -> None:
    fake_github.repository("acme", "shop").archived = True
    clone(fake_github, git)
    refused = git("push", "origin", "HEAD:refs/heads/x", token="writer-token", at="work")
    assert refused.returncode == 128
    assert "This repository was archived so it is read-only." in refused.stderr


def test_a_protected_branch_refuses_a_push(
    tmp_path: Path, fake_github: FakeGitHub, git: Git
) -> None:
    fake_github.repository("acme", "shop").protected.add("main")
    before = fake_github.branches("acme", "shop")["main"]
    clone(fake_github, git)
    commit_file(tmp_path, git, "a.txt", b"a")
    refused = git("push", "origin", "HEAD:main", "HEAD:feat/x", token="writer-token", at="work")
    assert refused.returncode == 1
    expected = "remote: error: GH006: Protected branch update failed for refs/heads/main."
    assert expected in refused.stderr
    assert "! [remote rejected] HEAD -> main" in refused.stderr
    assert fake_github.branches("acme", "shop")["main"] == before
    assert "feat/x" in fake_github.branches("acme", "shop")


def test_a_push_onto_a_commit_of_another_user_is_refused(
    tmp_path: Path, fake_github: FakeGitHub, git: Git
) -> None:
    clone(fake_github, git)
    sha = fake_github.commit("acme", "shop", "main", {"theirs.txt": "t"}, "Theirs")
    commit_file(tmp_path, git, "mine.txt", b"m")
    refused = git("push", "origin", "main", token="writer-token", at="work")
    assert "[rejected]" in refused.stderr
    assert fake_github.branches("acme", "shop")["main"] == sha


def test_shallow_and_partial_clones(fake_github: FakeGitHub, git: Git) -> None:
    for number in range(3):
        fake_github.commit("acme", "shop", "main", {"n.txt": str(number)}, f"Commit {number}")
    clone(fake_github, git, "--depth=1", "--filter=blob:none")
    assert git("rev-list", "--count", "HEAD", at="work").stdout.strip() == "1"
    assert git("fetch", "--unshallow", token="writer-token", at="work").returncode == 0
    assert git("rev-list", "--count", "HEAD", at="work").stdout.strip() == "4"


def test_an_empty_repository_can_be_cloned_and_filled(
    tmp_path: Path, fake_github: FakeGitHub, git: Git
) -> None:
    fake_github.create_repository("acme", "empty", files={})
    assert fake_github.branches("acme", "empty") == {}
    cloned = git("clone", f"{fake_github.url}/acme/empty.git", "work", token="writer-token")
    assert cloned.returncode == 0, cloned.stderr
    commit_file(tmp_path, git, "a.txt", b"a")
    assert git("push", "origin", "HEAD", token="writer-token", at="work").returncode == 0
    assert fake_github.branches("acme", "empty").keys() == {"main"}


def test_two_clients_at_the_same_time(tmp_path: Path, fake_github: FakeGitHub, git: Git) -> None:
    def work(name: str) -> None:
        url = f"{fake_github.url}/acme/shop.git"
        assert git("clone", url, name, token="writer-token").returncode == 0
        for number in range(3):
            commit_file(tmp_path, git, f"{number}.txt", name.encode(), at=name)
            pushed = git("push", "origin", f"HEAD:{name}", token="writer-token", at=name)
            assert pushed.returncode == 0, pushed.stderr

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ["one", "two"]))
    for name in ("one", "two"):
        assert len(fake_github.log("acme", "shop", name)) == 4
        assert fake_github.read_file("acme", "shop", name, "2.txt") == name


def test_a_large_push_streams(tmp_path: Path, fake_github: FakeGitHub, git: Git) -> None:
    clone(fake_github, git)
    content = random.Random(0).randbytes(20 << 20)
    commit_file(tmp_path, git, "large.bin", content)
    tracemalloc.start()
    try:
        pushed = git("push", "origin", "HEAD:large", token="writer-token", at="work")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pushed.returncode == 0, pushed.stderr
    assert "large" in fake_github.branches("acme", "shop")
    assert peak < len(content) / 4
    # The other direction.
    other = git(
        "clone", "-b", "large", f"{fake_github.url}/acme/shop.git", "other", token="reader-token"
    )
    assert other.returncode == 0
    assert (tmp_path / "other" / "large.bin").read_bytes() == content
