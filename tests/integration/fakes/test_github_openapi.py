"""Compare the fake GitHub's requests and replies with GitHub's OpenAPI description."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import jsonschema
import pytest
from github import Auth, Github
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakes.github.operations import OPERATIONS
from fakes.github.server import FakeGitHub, TokenGrant
from fakes.server import serving

GITHUB = json.loads(Path(__file__).with_name("github_openapi.json").read_text())
TOKENS = {
    "writer-token": TokenGrant("bot"),
    "reader-token": TokenGrant("reader", "read", scopes=None),
    "other-token": TokenGrant("other", repositories=frozenset({"acme/elsewhere"})),
}
WRITER, READER, OTHER, UNKNOWN = "writer-token", "reader-token", "other-token", "unknown-token"
SHOP = "/repos/acme/shop"
PULL = {"title": "T", "head": "feat/x", "base": "main"}


class Exchange(NamedTuple):
    operation: str
    sent: bytes
    status: int
    received: bytes


class Recorder:
    """Records the bodies of all REST requests and replies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent, received = bytearray(), bytearray()
        start: Message = {}

        async def recording_receive() -> Message:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def recording_send(message: Message) -> None:
            # Record before sending: the client continues as soon as it has the reply.
            if message["type"] == "http.response.start":
                start.update(message)
                return
            received.extend(message["body"])
            name = operation_name(scope["method"], scope["path"].removeprefix("/api"))
            self.exchanges.append(Exchange(name, bytes(sent), start["status"], bytes(received)))
            await send(start)
            await send(message)

        await self._app(scope, recording_receive, recording_send)


class Recorded(NamedTuple):
    fake_github: FakeGitHub
    url: str
    exchanges: list[Exchange]


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    fake_github = FakeGitHub(tmp_path, TOKENS)
    fake_github.create_repository("acme", "shop")
    fake_github.commit("acme", "shop", "feat/x", {"a.txt": "a\n"}, "Add a")
    recorder = Recorder(fake_github.app)
    with serving(recorder, 0) as url:
        yield Recorded(fake_github, f"{url}/api", recorder.exchanges)


def operation_name(method: str, path: str) -> str:
    for name, operation in GITHUB["operations"].items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", operation["path"])
        if operation["method"] == method and re.fullmatch(pattern, path):
            return str(name)
    return "none"


formats = jsonschema.FormatChecker(())


@formats.checks("date-time", ValueError)
def is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@formats.checks("uri")
def is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme and urlsplit(value).netloc)


def closed(schema: Any) -> Any:
    """Return the same schema with unknown fields as errors."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


def problems(schema: Any, body: bytes, *, exact: bool) -> list[str]:
    if schema is None:
        return [] if not body else [f"a body where none is described: {body[:200]!r}"]
    document = {**schema, "components": GITHUB["components"]}
    validator = jsonschema.Draft4Validator(
        closed(document) if exact else document, format_checker=formats
    )
    errors = validator.iter_errors(json.loads(body))
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def reply_schema(exchange: Exchange) -> Any:
    """GitHub describes some refusals for all operations together, or without a body."""
    described = GITHUB["operations"].get(exchange.operation, {}).get("responses", {})
    status = str(exchange.status)
    return described.get(status) or GITHUB["general"].get(status)


def exchange_problems(exchange: Exchange) -> list[str]:
    found = problems(reply_schema(exchange), exchange.received, exact=exchange.status < 300)
    if exchange.sent and exchange.status < 300:
        request = GITHUB["operations"][exchange.operation]["request"]
        found += problems(request, described_body(exchange), exact=True)
    return found


def described_body(exchange: Exchange) -> bytes:
    """PyGithub sends labels as a bare array, which GitHub's prose allows and its schema omits."""
    if exchange.operation == "issues/add-labels" and exchange.sent.startswith(b"["):
        return b'{"labels": %b}' % exchange.sent
    return exchange.sent


def test_the_description_covers_exactly_what_the_fake_serves() -> None:
    described = {
        (operation["id"], operation["method"], operation["path"])
        for operation in GITHUB["operations"].values()
    }
    assert described == {(each.id, each.method, each.path) for each in OPERATIONS}


def test_every_operation_called_by_pygithub_has_the_described_shape(recorded: Recorded) -> None:
    github = Github(
        auth=Auth.Token(WRITER),
        base_url=recorded.url,
        retry=None,
        seconds_between_requests=None,
        seconds_between_writes=None,
    )
    with contextlib.closing(github):
        call_everything(github)
    assert {each.operation for each in recorded.exchanges} == set(GITHUB["operations"])
    for exchange in recorded.exchanges:
        assert exchange.status in (200, 201), exchange
        assert exchange_problems(exchange) == [], exchange.operation


def call_everything(github: Github) -> None:
    assert github.get_user().login == "bot"
    assert github.get_rate_limit().rate.limit == 5000
    repository = github.get_repo("acme/shop")
    pull = repository.create_pull(base="main", head="feat/x", title="T", body="B", draft=True)
    pull.add_to_labels("agent", "later")
    assert [label.name for label in repository.get_pull(1).labels] == ["agent", "later"]
    pull.create_review_request(reviewers=["reader"])
    assert [found.number for found in repository.get_pulls(head="acme:feat/x")] == [1]
    assert [user.login for user in repository.get_pull(1).requested_reviewers] == ["reader"]
    pull.edit(title="T2", body="B2", state="closed")


@pytest.mark.parametrize(
    ("token", "method", "path", "body", "status"),
    [
        (UNKNOWN, "GET", "/user", None, 401),
        (None, "GET", "/user", None, 401),
        (None, "GET", SHOP, None, 401),
        (UNKNOWN, "GET", "/rate_limit", None, 401),
        (OTHER, "GET", SHOP, None, 404),
        (WRITER, "GET", "/repos/acme/none", None, 404),
        (WRITER, "GET", "/nonsense", None, 404),
        (WRITER, "PUT", f"{SHOP}/pulls", None, 404),
        (UNKNOWN, "GET", f"{SHOP}/pulls", None, 401),
        (OTHER, "GET", f"{SHOP}/pulls", None, 404),
        (WRITER, "POST", f"{SHOP}/pulls", "not json", 400),
        (WRITER, "POST", f"{SHOP}/pulls", 1, 400),
        (WRITER, "POST", f"{SHOP}/pulls", [], 422),
        (WRITER, "POST", f"{SHOP}/pulls", {"head": "feat/x", "base": "main"}, 422),
        (WRITER, "POST", f"{SHOP}/pulls", {**PULL, "head": "none"}, 422),
        (WRITER, "POST", f"{SHOP}/pulls", {**PULL, "base": "none"}, 422),
        (WRITER, "POST", f"{SHOP}/pulls", {**PULL, "head": "main"}, 422),
        (WRITER, "POST", f"{SHOP}/pulls", {**PULL, "head": "open"}, 422),
        (WRITER, "POST", f"{SHOP}/pulls", {**PULL, "body": 1}, 422),
        (READER, "POST", f"{SHOP}/pulls", PULL, 403),
        (None, "POST", f"{SHOP}/pulls", PULL, 401),
        (WRITER, "GET", f"{SHOP}/pulls/9", None, 404),
        (WRITER, "PATCH", f"{SHOP}/pulls/9", {"state": "closed"}, 404),
        (WRITER, "PATCH", f"{SHOP}/pulls/1", {"state": "gone"}, 422),
        (WRITER, "PATCH", f"{SHOP}/pulls/1", {"base": "none"}, 422),
        (READER, "PATCH", f"{SHOP}/pulls/1", {"state": "closed"}, 403),
        (WRITER, "POST", f"{SHOP}/pulls/1/requested_reviewers", {"reviewers": ["bot"]}, 422),
        (READER, "POST", f"{SHOP}/pulls/1/requested_reviewers", {"reviewers": ["x"]}, 403),
        (WRITER, "POST", f"{SHOP}/issues/9/labels", {"labels": ["x"]}, 404),
        (WRITER, "POST", f"{SHOP}/issues/1/labels", {"labels": [1]}, 422),
        (READER, "POST", f"{SHOP}/issues/1/labels", ["x"], 403),
    ],
)
def test_every_refusal_has_the_described_shape(
    refusing: Recorded, token: str | None, method: str, path: str, body: Any, status: int
) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    content = body if isinstance(body, str) else None if body is None else json.dumps(body)
    # Certificates are not needed here, and loading them takes longer than the request.
    with httpx.Client(verify=False) as client:
        answer = client.request(method, refusing.url + path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json()["status"] == str(status)
    assert exchange_problems(refusing.exchanges[-1]) == []


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    fake_github = FakeGitHub(tmp_path_factory.mktemp("fake_github"), TOKENS)
    shop = fake_github.create_repository("acme", "shop")
    for branch in ("feat/x", "open"):
        fake_github.commit("acme", "shop", branch, {"a.txt": f"{branch}\n"}, "Add a")
    shop.pulls.open("bot", "T", None, "open", "main", draft=False)
    recorder = Recorder(fake_github.app)
    with serving(recorder, 0) as url:
        yield Recorded(fake_github, f"{url}/api", recorder.exchanges)


def test_archived_repositories_refuse_in_the_described_shape(recorded: Recorded) -> None:
    recorded.fake_github.repository("acme", "shop").archived = True
    headers = {"authorization": f"token {WRITER}"}
    answer = httpx.post(f"{recorded.url}{SHOP}/pulls", json=PULL, headers=headers)
    assert answer.status_code == 403
    assert exchange_problems(recorded.exchanges[-1]) == []


@pytest.mark.parametrize("secondary", [False, True])
def test_rate_limits_have_the_described_shape(recorded: Recorded, secondary: bool) -> None:
    recorded.fake_github.limit_next(secondary=secondary)
    assert httpx.get(f"{recorded.url}/user").status_code == 403
    assert exchange_problems(recorded.exchanges[-1]) == []


def test_a_reply_that_differs_from_the_description_is_noticed(recorded: Recorded) -> None:
    headers = {"authorization": f"Bearer {WRITER}"}
    reply = httpx.get(recorded.url + SHOP, headers=headers).json()
    lacking = {key: value for key, value in reply.items() if key != "clone_url"}
    for wrong in (lacking, {**reply, "invented": 1}, {**reply, "url": "/x"}, {**reply, "id": "1"}):
        exchange = Exchange("repos/get", b"", 200, json.dumps(wrong).encode())
        assert len(exchange_problems(exchange)) == 1
