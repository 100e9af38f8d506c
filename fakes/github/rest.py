"""GitHub's REST API: dispatches HTTP requests to operations and renders their replies."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, Router
from starlette.types import Scope

from fakes.github.errors import Refusal, invalid, not_found
from fakes.github.payloads import Json, Site
from fakes.github.pull_requests import PullRequest
from fakes.github.repository import RESERVED_OWNER, Repository
from fakes.github.tokens import TokenGrant, find_grant, presented_token

_HOURLY_LIMIT = 5000
_ANONYMOUS_LIMIT = 60
_ANONYMOUS = TokenGrant("", "read", frozenset(), None)


@dataclass(frozen=True)
class Reply:
    """The answer to one request."""

    status: int
    body: Json | list[Json]
    link: str | None = None


class Call:
    """One request to an operation.

    Args:
        site: builds links.
        grant: the grant of the token.
        repository: the repository in the path, if any.
        request: the HTTP request.
        content: the decoded JSON body.
        rate: the token's rate limit after this request.
    """

    def __init__(
        self,
        site: Site,
        grant: TokenGrant,
        repository: Repository | None,
        request: Request,
        content: Any,
        rate: Json,
    ) -> None:
        self.site = site
        self.grant = grant
        self.query: Mapping[str, str] = request.query_params
        self.path: Mapping[str, str] = request.path_params
        self.content = content
        self.rate = rate
        self._url = request.url
        self._repository = repository

    @property
    def repository(self) -> Repository:
        """Return the repository in the path."""
        if self._repository is None:
            raise not_found()
        return self._repository

    @property
    def pull(self) -> PullRequest:
        """Return the pull request in the path."""
        number = self.path.get("pull_number") or self.path["issue_number"]
        return self.repository.pulls.get(number)

    @property
    def fields(self) -> Json:
        """Return the body, which must be a JSON object."""
        if not isinstance(self.content, dict):
            raise Refusal(422, "Invalid request.\n\nThe body is not an object.")
        return self.content

    def text(self, field: str) -> str:
        """Return a required string field of the body."""
        value = self.fields.get(field)
        if not isinstance(value, str) or not value:
            raise invalid(field, "missing_field")
        return value

    def optional_text(self, field: str) -> str | None:
        """Return an optional string field of the body."""
        value = self.fields.get(field)
        if not isinstance(value, str | None):
            raise invalid(field)
        return value

    def page(self, items: list[Any]) -> tuple[list[Any], str | None]:
        """Return the requested page of a list, and the `Link` header to other pages."""
        size = min(max(_number(self.query.get("per_page"), 30), 1), 100)
        number = max(_number(self.query.get("page"), 1), 1)
        last = max(-(-len(items) // size), 1)
        links: dict[str, int] = {}
        if number > 1:
            links |= {"prev": number - 1, "first": 1}
        if number < last:
            links |= {"next": number + 1, "last": last}
        rendered = (
            f'<{self._url.include_query_params(page=target)}>; rel="{relation}"'
            for relation, target in links.items()
        )
        return items[(number - 1) * size : number * size], ", ".join(rendered) or None


@dataclass(frozen=True)
class Operation:
    """One operation of the API, with the id and path of GitHub's OpenAPI description."""

    id: str
    method: str
    path: str
    perform: Callable[[Call], Reply]

    @property
    def route(self) -> str:
        """Return the path on the fake GitHub."""
        return f"/{RESERVED_OWNER}{self.path}"


class Rest:
    """Answers REST requests.

    Args:
        operations: the served operations.
        find: returns a repository by owner and name.
        tokens: the grant of each token; read on every request.
    """

    def __init__(
        self,
        operations: list[Operation],
        find: Callable[[str, str], Repository | None],
        tokens: Mapping[str, TokenGrant],
    ) -> None:
        self._find = find
        self._tokens = tokens
        self._used: Counter[str] = Counter()
        self._reset = int(time.time()) + 3600
        self.routes = [
            Route(each.route, self._endpoint(each), methods=[each.method], name=each.id)
            for each in operations
        ]

    def _endpoint(self, operation: Operation) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            raw = await request.body()
            return await run_in_threadpool(self._respond, operation, request, raw)

        return endpoint

    def _respond(self, operation: Operation, request: Request, raw: bytes) -> Response:
        grant: TokenGrant | None = None
        rate = self._rate(_ANONYMOUS)
        try:
            grant = self._authenticate(request, operation)
            self._used[grant.login] += operation.id != "rate-limit/get"
            rate = self._rate(grant)
            repository = self._find_repository(operation, request, grant)
            site = Site(str(request.base_url).rstrip("/"))
            content = _decode(raw, operation)
            call = Call(site, grant, repository, request, content, rate)
            with repository.lock if repository else contextlib.nullcontext():
                reply = operation.perform(call)
        except Refusal as refusal:
            reply = Reply(refusal.status, refusal.body())
        return _render(reply, grant, rate)

    def _authenticate(self, request: Request, operation: Operation) -> TokenGrant:
        token = presented_token(request.headers.get("authorization"))
        if token is None:
            if operation.method != "GET" or operation.id == "users/get-authenticated":
                raise Refusal(401, "Requires authentication")
            return _ANONYMOUS
        grant = find_grant(self._tokens, token)
        if grant is None:
            raise Refusal(401, "Bad credentials")
        return grant

    def _find_repository(
        self, operation: Operation, request: Request, grant: TokenGrant
    ) -> Repository | None:
        """Return the repository in the path, if the token may perform this operation on it."""
        if "{owner}" not in operation.path:
            return None
        repository = self._find(request.path_params["owner"], request.path_params["repo"])
        if repository is None or not repository.readable_by(grant):
            raise Refusal(401, "Requires authentication") if grant is _ANONYMOUS else not_found()
        if operation.method != "GET":
            _require_write_access(repository, grant)
        return repository

    def _rate(self, grant: TokenGrant) -> Json:
        limit = _ANONYMOUS_LIMIT if grant is _ANONYMOUS else _HOURLY_LIMIT
        used = self._used[grant.login]
        remaining = max(limit - used, 0)
        return {"limit": limit, "remaining": remaining, "reset": self._reset, "used": used}


def unknown_path() -> Response:
    """Return the answer for a path that the fake GitHub does not serve."""
    return _render(Reply(404, not_found().body()), None, None)


def operation_id(router: Router, scope: Scope) -> str | None:
    """Return the id of the requested operation."""
    for route in router.routes:
        if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL:
            return route.name
    return None


def _require_write_access(repository: Repository, grant: TokenGrant) -> None:
    if not repository.writable_by(grant):
        raise Refusal(403, "Resource not accessible by personal access token")
    if repository.archived:
        raise Refusal(403, "Repository was archived so is read-only.")


def _decode(raw: bytes, operation: Operation) -> Any:
    if operation.method == "GET":
        return None
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise Refusal(400, "Problems parsing JSON") from error
    if not isinstance(content, dict | list):
        raise Refusal(400, "Body should be a JSON object")
    return content


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else default


def _render(reply: Reply, grant: TokenGrant | None, rate: Json | None) -> Response:
    headers = {"x-github-media-type": "github.v3"}
    if rate is not None:
        headers |= {f"x-ratelimit-{name}": str(value) for name, value in rate.items()}
        headers["x-ratelimit-resource"] = "core"
    if grant is not None and grant.scopes is not None:
        headers["x-oauth-scopes"] = grant.scopes
    if reply.link is not None:
        headers["link"] = reply.link
    return JSONResponse(
        reply.body, reply.status, headers, media_type="application/json; charset=utf-8"
    )
