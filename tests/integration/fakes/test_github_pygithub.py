"""Unmodified PyGithub against the fake GitHub: successes and all refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from github import Auth, BadCredentialsException, Github, GithubException, UnknownObjectException
from github.PullRequest import PullRequest
from github.Repository import Repository

from fakes.github.server import FakeGitHub, TokenGrant

Connect = Callable[[str | None], Github]


@pytest.fixture
def fake_github(tmp_path: Path) -> Iterator[FakeGitHub]:
    """A running fake GitHub with acme/shop, whose branch feat/x is one commit ahead of main."""
    tokens = {
        "writer-token": TokenGrant("bot"),
        "reader-token": TokenGrant("reader", "read", scopes=None),
        "narrow-token": TokenGrant("narrow", repositories=frozenset({"acme/elsewhere"})),
    }
    fake_github = FakeGitHub(tmp_path, tokens)
    fake_github.create_repository("acme", "shop")
    fake_github.commit("acme", "shop", "feat/x", {"a.txt": "1\n2\n"}, "Add a")
    with fake_github.serve():
        yield fake_github


@pytest.fixture
def connect(fake_github: FakeGitHub) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def connected(token: str | None) -> Github:
            github = Github(
                auth=Auth.Token(token) if token else None,
                base_url=fake_github.api_url,
                retry=None,
                seconds_between_requests=None,
                seconds_between_writes=None,
            )
            stack.callback(github.close)
            return github

        yield connected


@pytest.fixture
def shop(connect: Connect) -> Repository:
    return connect("writer-token").get_repo("acme/shop")


def open_pull(shop: Repository, head: str = "feat/x", **more: Any) -> PullRequest:
    return shop.create_pull(base="main", head=head, title="T", body="B", **more)


def refusal(attempt: Callable[[], object]) -> tuple[int, str, list[dict[str, str]]]:
    """Return status, message and errors of a refused call."""
    with pytest.raises(GithubException) as caught:
        attempt()
    data = caught.value.data
    assert isinstance(data, dict)
    return caught.value.status, data["message"], data.get("errors", [])


def test_a_token_shows_its_user_and_scopes(connect: Connect) -> None:
    writer, reader = connect("writer-token"), connect("reader-token")
    assert (writer.get_user().login, writer.oauth_scopes) == ("bot", ["repo"])
    assert (reader.get_user().login, reader.oauth_scopes) == ("reader", None)
    assert writer.get_repo("acme/shop").permissions.push
    assert not reader.get_repo("acme/shop").permissions.push


def test_the_rate_limit_counts_down(connect: Connect) -> None:
    github = connect("writer-token")
    github.get_user().login  # noqa: B018 - PyGithub asks when the attribute is read
    github.get_repo("acme/shop")
    assert github.get_rate_limit().rate.remaining == 4998
    assert github.rate_limiting == (4998, 5000)


def test_an_unknown_token_is_refused(connect: Connect) -> None:
    github = connect("unknown-token")
    with pytest.raises(BadCredentialsException):
        github.get_repo("acme/shop")
    assert refusal(lambda: github.get_repo("acme/shop"))[:2] == (401, "Bad credentials")


def test_no_token_is_refused(connect: Connect) -> None:
    github = connect(None)
    assert refusal(lambda: github.get_repo("acme/shop"))[:2] == (401, "Requires authentication")
    assert refusal(lambda: github.get_user("x").login)[0] == 404


def test_no_token_is_needed_to_read_a_public_repository(
    fake_github: FakeGitHub, connect: Connect
) -> None:
    fake_github.repository("acme", "shop").private = False
    shop = connect(None).get_repo("acme/shop")
    assert refusal(lambda: open_pull(shop))[:2] == (401, "Requires authentication")


def test_a_token_can_be_revoked_at_any_time(fake_github: FakeGitHub, shop: Repository) -> None:
    del fake_github.tokens["writer-token"]
    with pytest.raises(BadCredentialsException):
        open_pull(shop)


@pytest.mark.parametrize(("token", "name"), [("narrow-token", "shop"), ("writer-token", "none")])
def test_an_invisible_repository_does_not_exist(connect: Connect, token: str, name: str) -> None:
    with pytest.raises(UnknownObjectException):
        connect(token).get_repo(f"acme/{name}")


def test_names_are_found_in_any_case(connect: Connect) -> None:
    found = connect("writer-token").get_repo("ACME/Shop")
    assert (found.full_name, found.default_branch) == ("acme/shop", "main")


def test_a_read_only_token_may_not_open_a_pull_request(
    fake_github: FakeGitHub, connect: Connect
) -> None:
    shop = connect("reader-token").get_repo("acme/shop")
    message = "Resource not accessible by personal access token"
    assert refusal(lambda: open_pull(shop)) == (403, message, [])
    assert fake_github.pull_requests("acme", "shop") == []


def test_an_archived_repository_cannot_be_changed(
    fake_github: FakeGitHub, shop: Repository
) -> None:
    fake_github.repository("acme", "shop").archived = True
    message = "Repository was archived so is read-only."
    assert refusal(lambda: open_pull(shop))[:2] == (403, message)
    assert list(shop.get_pulls()) == []


def test_a_pull_request_has_the_values_it_was_opened_with(
    fake_github: FakeGitHub, shop: Repository
) -> None:
    pull = open_pull(shop, draft=True)
    assert (pull.number, pull.title, pull.body, pull.state) == (1, "T", "B", "open")
    assert (pull.draft, pull.merged, pull.user.login) == (True, False, "bot")
    assert (pull.head.label, pull.base.label) == ("acme:feat/x", "acme:main")
    assert pull.head.sha == fake_github.branches("acme", "shop")["feat/x"]
    assert pull.base.sha == fake_github.branches("acme", "shop")["main"]
    assert pull.html_url == f"{fake_github.url}/acme/shop/pull/1"
    assert fake_github.pull_requests("acme", "shop")[0].title == "T"


@pytest.mark.parametrize(
    ("field", "branch"),
    [("head", "none"), ("head", "acme:none"), ("head", "somebody:feat/x"), ("base", "none")],
)
def test_a_missing_branch_is_refused(shop: Repository, field: str, branch: str) -> None:
    ends = {"head": "feat/x", "base": "main", field: branch}
    attempt = partial(shop.create_pull, head=ends["head"], base=ends["base"], title="T")
    status, message, errors = refusal(attempt)
    assert (status, message) == (422, "Validation Failed")
    assert errors == [{"resource": "PullRequest", "field": field, "code": "invalid"}]


@pytest.mark.parametrize("base", ["main", "feat/x"])
def test_a_head_without_new_commits_is_refused(shop: Repository, base: str) -> None:
    status, _, errors = refusal(lambda: shop.create_pull(base=base, head="main", title="T"))
    assert status == 422
    assert errors[0]["message"] == f"No commits between {base} and main"


def test_a_second_pull_request_for_a_head_is_refused(shop: Repository) -> None:
    open_pull(shop)
    for head in ("feat/x", "acme:feat/x"):
        status, _, errors = refusal(partial(open_pull, shop, head))
        assert status == 422
        assert errors[0]["code"] == "custom"
        assert errors[0]["message"] == "A pull request already exists for acme:feat/x."


def test_after_closing_another_one_may_be_opened(shop: Repository) -> None:
    first = open_pull(shop)
    first.edit(state="closed")
    assert first.closed_at is not None
    second = open_pull(shop)
    assert second.number == 2
    assert refusal(lambda: first.edit(state="open"))[0] == 422
    second.edit(state="closed")
    first.edit(state="open")
    assert first.state == "open"
    assert first.closed_at is None


def test_pull_requests_are_found_by_head_base_and_state(
    fake_github: FakeGitHub, shop: Repository
) -> None:
    fake_github.commit("acme", "shop", "feat/y", {"y.txt": "y"}, "Add y")
    x, y = open_pull(shop), open_pull(shop, "feat/y")
    x.edit(state="closed")

    def found(**filters: str) -> list[int]:
        return [pull.number for pull in shop.get_pulls(**filters)]

    assert found() == [y.number]
    assert found(state="all") == [y.number, x.number]
    assert found(state="all", direction="asc") == [x.number, y.number]
    assert found(state="all", sort="updated") == [x.number, y.number]
    assert found(state="all", head="acme:feat/x") == [x.number]
    assert found(head="acme:feat/x") == []
    assert found(head="somebody:feat/y") == []
    assert found(head="feat/none") == [y.number], "GitHub ignores a head without an owner"
    assert found(base="none") == []


def test_lists_come_in_pages(fake_github: FakeGitHub, connect: Connect) -> None:
    for number in range(5):
        fake_github.commit("acme", "shop", f"feat/{number}", {"n.txt": str(number)}, "Add n")
    shop = connect("writer-token").get_repo("acme/shop")
    shop.requester.per_page = 3
    for number in range(5):
        open_pull(shop, f"feat/{number}")
    before = len(fake_github.requests)
    assert [pull.number for pull in shop.get_pulls()] == [5, 4, 3, 2, 1]
    assert len(fake_github.requests) - before == 2
    assert shop.get_pulls().totalCount == 5


def test_a_pull_request_can_be_edited_and_labelled(
    fake_github: FakeGitHub, shop: Repository
) -> None:
    fake_github.commit("acme", "shop", "next", {"n.txt": "n"}, "Add n")
    pull = open_pull(shop)
    pull.edit(title="T2", body="B2", base="next")
    pull.add_to_labels("agent", "agent")
    pull.add_to_labels("agent", "later")
    pull.create_review_request(reviewers=["reader"])
    again = shop.get_pull(1)
    assert (again.title, again.body, again.base.ref) == ("T2", "B2", "next")
    assert [label.name for label in again.labels] == ["agent", "later"]
    assert [user.login for user in again.requested_reviewers] == ["reader"]
    assert refusal(lambda: pull.create_review_request(reviewers=["bot"]))[0] == 422


def test_a_pull_request_follows_its_branch(fake_github: FakeGitHub, shop: Repository) -> None:
    pull = open_pull(shop)
    assert (pull.commits, pull.changed_files, pull.additions, pull.deletions) == (1, 1, 2, 0)
    files: dict[str, str | bytes | None] = {"a.txt": "1\n", "b.txt": "b\n", "ü.bin": b"\x00\x01"}
    sha = fake_github.commit("acme", "shop", "feat/x", files, "Change a")
    fake_github.commit("acme", "shop", "main", {"other.txt": "o\n"}, "Somebody else's")
    pull = shop.get_pull(1)
    assert pull.head.sha == sha
    assert (pull.commits, pull.changed_files, pull.additions, pull.deletions) == (2, 3, 2, 0)


def test_deleting_the_head_closes_the_pull_request(
    fake_github: FakeGitHub, shop: Repository
) -> None:
    sha = open_pull(shop).head.sha
    fake_github.repository("acme", "shop").bare.delete("feat/x")
    closed = shop.get_pull(1)
    assert (closed.state, closed.head.sha, closed.commits) == ("closed", sha, 1)
    assert refusal(lambda: closed.edit(state="open"))[0] == 422
