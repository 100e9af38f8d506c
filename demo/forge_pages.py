"""Pages for a person with a browser: a repository, and a pull request with its diff."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from demo.forge_pulls import PullRequest
from demo.forge_refusals import Refusal
from demo.forge_repository import Repository

_STYLE = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto}pre{white-space:pre-wrap}"
_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


class Pages:
    """Answers page requests; whoever reaches the forge may look.

    Args:
        find: looks a repository up by owner and name.
    """

    def __init__(self, find: Callable[[str, str], Repository | None]) -> None:
        self._find = find
        self.routes = [
            Route("/{owner}/{name}", self._repository, name="pages/repository"),
            Route("/{owner}/{name}/pull/{number}", self._pull, name="pages/pull"),
        ]

    def _repository(self, request: Request) -> HTMLResponse:
        repository = self._found(request)
        if repository is None:
            return _missing()
        pulls = "".join(
            f'<li><a href="/{repository.full_name}/pull/{pull.number}">#{pull.number} '
            f"{escape(pull.title)}</a> ({pull.state})</li>"
            for pull in repository.pulls.all()
        )
        branches = "".join(f"<li>{escape(name)}</li>" for name in repository.bare.branches())
        return _page(
            repository.full_name,
            f"<h2>Pull requests</h2><ul>{pulls}</ul><h2>Branches</h2><ul>{branches}</ul>",
        )

    def _pull(self, request: Request) -> HTMLResponse:
        repository = self._found(request)
        if repository is None:
            return _missing()
        with repository.lock:
            try:
                pull = repository.pulls.get(request.path_params["number"])
            except Refusal:
                return _missing()
            return _page(f"{pull.title} #{pull.number}", _described(repository, pull))

    def _found(self, request: Request) -> Repository | None:
        return self._find(request.path_params["owner"], request.path_params["name"])


def _described(repository: Repository, pull: PullRequest) -> str:
    state = f"{'draft, ' if pull.draft else ''}{pull.state}"
    summary = f"{pull.author} wants to merge {pull.head} into {pull.base} ({state})"
    comments = "".join(
        f"<pre>{escape(each.author)}: {escape(each.body)}</pre>" for each in pull.comments
    )
    diff = repository.bare.diff(pull.base_sha, pull.head_sha)
    return (
        f"<p>{escape(summary)}</p><pre>{escape(pull.body or '')}</pre>{comments}"
        f"<h2>Changes</h2><pre>{escape(diff)}</pre>"
    )


def _page(title: str, content: str) -> HTMLResponse:
    title = escape(title)
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title}</h1>{content}</html>",
        headers=_HEADERS,
    )


def _missing() -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>Not found</title>Not found.", 404, _HEADERS)
