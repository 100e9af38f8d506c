"""The operations of GitHub's REST API that the fake GitHub serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fakes.github.errors import Refusal, invalid
from fakes.github.payloads import (
    authenticated_user,
    full_repository,
    label,
    pull_request,
    pull_request_simple,
)
from fakes.github.pull_requests import PullRequest
from fakes.github.rest import Call, Operation, Reply

OPERATIONS: list[Operation] = []

_REPOSITORY = "/repos/{owner}/{repo}"
_PULL = f"{_REPOSITORY}/pulls/{{pull_number}}"
_ISSUE = f"{_REPOSITORY}/issues/{{issue_number}}"

_Perform = Callable[[Call], Reply]


def _operation(operation_id: str, method: str, path: str) -> Callable[[_Perform], _Perform]:
    def register(perform: _Perform) -> _Perform:
        OPERATIONS.append(Operation(operation_id, method, path, perform))
        return perform

    return register


@_operation("users/get-authenticated", "GET", "/user")
def _get_user(call: Call) -> Reply:
    return Reply(200, authenticated_user(call.site, call.grant.login))


@_operation("rate-limit/get", "GET", "/rate_limit")
def _get_rate_limit(call: Call) -> Reply:
    resources = {"core": call.rate, "search": call.rate}
    return Reply(200, {"resources": resources, "rate": call.rate})


@_operation("repos/get", "GET", _REPOSITORY)
def _get_repository(call: Call) -> Reply:
    return Reply(200, full_repository(call.site, call.repository, call.grant))


@_operation("pulls/list", "GET", f"{_REPOSITORY}/pulls")
def _list_pulls(call: Call) -> Reply:
    wanted = [pull for pull in call.repository.pulls.all() if _selected(call, pull)]
    wanted.sort(key=_sort_key(call), reverse=call.query.get("direction", "desc") == "desc")
    page, link = call.page(wanted)
    body = [pull_request_simple(call.site, call.repository, pull, call.grant) for pull in page]
    return Reply(200, body, link)


@_operation("pulls/create", "POST", f"{_REPOSITORY}/pulls")
def _create_pull(call: Call) -> Reply:
    pull = call.repository.pulls.open(
        author=call.grant.login,
        head=call.text("head"),
        base=call.text("base"),
        title=call.text("title"),
        body=call.optional_text("body"),
        draft=call.fields.get("draft") is True,
    )
    return Reply(201, pull_request(call.site, call.repository, pull, call.grant))


@_operation("pulls/get", "GET", _PULL)
def _get_pull(call: Call) -> Reply:
    return Reply(200, pull_request(call.site, call.repository, call.pull, call.grant))


@_operation("pulls/update", "PATCH", _PULL)
def _update_pull(call: Call) -> Reply:
    pull, pulls = call.pull, call.repository.pulls
    if call.fields.get("state") not in (None, "open", "closed"):
        raise invalid("state")
    if "base" in call.fields:
        pulls.rebase(pull, call.text("base"))
    if call.fields.get("state") == "open":
        pulls.reopen(pull)
    elif call.fields.get("state") == "closed":
        pull.close()
    if "title" in call.fields:
        pull.title = call.text("title")
    if "body" in call.fields:
        pull.body = call.optional_text("body")
    pull.updated_at = time.time()
    return Reply(200, pull_request(call.site, call.repository, pull, call.grant))


@_operation("pulls/request-reviewers", "POST", f"{_PULL}/requested_reviewers")
def _request_reviewers(call: Call) -> Reply:
    pull = call.pull
    logins = _names(call.fields.get("reviewers", []))
    if pull.author in logins:
        raise Refusal(422, "Review cannot be requested from pull request author.")
    pull.reviewers += [login for login in logins if login not in pull.reviewers]
    return Reply(201, pull_request_simple(call.site, call.repository, pull, call.grant))


@_operation("issues/add-labels", "POST", f"{_ISSUE}/labels")
def _add_labels(call: Call) -> Reply:
    pull = call.pull
    content = call.content if isinstance(call.content, list) else call.fields.get("labels", [])
    pull.labels += [name for name in _names(content) if name not in pull.labels]
    return Reply(200, [label(call.site, call.repository, name) for name in pull.labels])


def _names(given: Any) -> list[str]:
    """Return distinct names from a list of texts or of `{"name": ...}`."""
    items = given if isinstance(given, list) else [given]
    names = [item.get("name") if isinstance(item, dict) else item for item in items]
    texts = [name for name in names if isinstance(name, str) and name]
    if len(texts) < len(names):
        raise invalid("name")
    return list(dict.fromkeys(texts))


def _selected(call: Call, pull: PullRequest) -> bool:
    state = call.query.get("state", "open")
    base = call.query.get("base")
    owner, colon, head = call.query.get("head", "").partition(":")
    if state != "all" and pull.state != state:
        return False
    if base and pull.base != base:
        return False
    # GitHub ignores a head without `owner:` and then lists every pull request (recalled).
    return not colon or (owner, head) == (call.repository.owner, pull.head)


def _sort_key(call: Call) -> Callable[[PullRequest], tuple[float, int]]:
    if call.query.get("sort") == "updated":
        return lambda pull: (pull.updated_at, pull.number)
    return lambda pull: (pull.created_at, pull.number)
