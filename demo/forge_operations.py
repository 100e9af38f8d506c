"""The operations of GitHub's REST API that the forge serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from demo.forge_changes import changes
from demo.forge_pull_shapes import (
    diff_entry,
    issue_comment,
    label,
    pull_request,
    pull_request_simple,
)
from demo.forge_pulls import Comment, PullRequest
from demo.forge_refusals import Refusal, invalid, not_found
from demo.forge_rest import Call, Operation, Reply
from demo.forge_shapes import (
    authenticated_user,
    branch,
    commit,
    full_repository,
    git_ref,
    short_branch,
)

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


@_operation("repos/list-branches", "GET", f"{_REPOSITORY}/branches")
def _list_branches(call: Call) -> Reply:
    found, link = call.page(sorted(call.repository.bare.branches().items()))
    body = [short_branch(call.site, call.repository, name, sha) for name, sha in found]
    return Reply(200, body, link)


@_operation("repos/get-branch", "GET", f"{_REPOSITORY}/branches/{{branch}}")
def _get_branch(call: Call) -> Reply:
    name = call.path["branch"]
    sha = call.repository.bare.branches().get(name)
    if sha is None:
        raise Refusal(404, "Branch not found")
    tip = call.repository.bare.commit_of(sha)
    return Reply(200, branch(call.site, call.repository, name, tip))


@_operation("git/get-ref", "GET", f"{_REPOSITORY}/git/ref/{{ref}}")
def _get_ref(call: Call) -> Reply:
    ref = call.path["ref"]
    sha = call.repository.bare.branches().get(ref.removeprefix("heads/"))
    if sha is None or not ref.startswith("heads/"):
        raise not_found()
    return Reply(200, git_ref(call.site, call.repository, ref, sha))


@_operation("git/delete-ref", "DELETE", f"{_REPOSITORY}/git/refs/{{ref}}")
def _delete_ref(call: Call) -> Reply:
    ref = call.path["ref"]
    name = ref.removeprefix("heads/")
    if not ref.startswith("heads/") or name not in call.repository.bare.branches():
        raise Refusal(422, "Reference does not exist")
    if name in call.repository.protected:
        raise Refusal(422, "Cannot delete a protected branch")
    call.repository.bare.delete(name)
    return Reply(204)


@_operation("pulls/list", "GET", f"{_REPOSITORY}/pulls")
def _list_pulls(call: Call) -> Reply:
    wanted = [pull for pull in call.repository.pulls.all() if _selected(call, pull)]
    wanted.sort(key=_sort_key(call), reverse=call.query.get("direction", "desc") == "desc")
    found, link = call.page(wanted)
    body = [pull_request_simple(call.site, call.repository, pull, call.grant) for pull in found]
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


@_operation("pulls/list-files", "GET", f"{_PULL}/files")
def _list_files(call: Call) -> Reply:
    pull = call.pull
    found, link = call.page(changes(call.repository.bare, pull.base_sha, pull.head_sha))
    body = [diff_entry(call.site, call.repository, pull, change) for change in found]
    return Reply(200, body, link)


@_operation("pulls/list-commits", "GET", f"{_PULL}/commits")
def _list_commits(call: Call) -> Reply:
    pull = call.pull
    found, link = call.page(call.repository.bare.commits(pull.base_sha, pull.head_sha))
    return Reply(200, [commit(call.site, call.repository, each) for each in found], link)


@_operation("pulls/request-reviewers", "POST", f"{_PULL}/requested_reviewers")
def _request_reviewers(call: Call) -> Reply:
    pull = call.pull
    logins = _names(call.fields.get("reviewers", []))
    if pull.author in logins:
        raise Refusal(422, "Review cannot be requested from pull request author.")
    pull.reviewers += [login for login in logins if login not in pull.reviewers]
    return Reply(201, pull_request_simple(call.site, call.repository, pull, call.grant))


@_operation("issues/list-comments", "GET", f"{_ISSUE}/comments")
def _list_comments(call: Call) -> Reply:
    pull = call.pull
    found, link = call.page(pull.comments)
    return Reply(
        200, [issue_comment(call.site, call.repository, pull, each) for each in found], link
    )


@_operation("issues/create-comment", "POST", f"{_ISSUE}/comments")
def _create_comment(call: Call) -> Reply:
    pull = call.pull
    comment = Comment(len(pull.comments) + 1, call.grant.login, call.text("body"))
    pull.comments.append(comment)
    return Reply(201, issue_comment(call.site, call.repository, pull, comment))


@_operation("issues/list-labels-on-issue", "GET", f"{_ISSUE}/labels")
def _list_labels(call: Call) -> Reply:
    found, link = call.page(call.pull.labels)
    return Reply(200, [label(call.site, call.repository, name) for name in found], link)


@_operation("issues/add-labels", "POST", f"{_ISSUE}/labels")
def _add_labels(call: Call) -> Reply:
    pull = call.pull
    given = call.content if isinstance(call.content, list) else call.fields.get("labels", [])
    pull.labels += [name for name in _names(given) if name not in pull.labels]
    return Reply(200, [label(call.site, call.repository, name) for name in pull.labels])


def _names(given: Any) -> list[str]:
    """Return a list of distinct names, which may come as text or as `{"name": ...}`."""
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
