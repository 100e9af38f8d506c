"""Call GitHub through PyGithub, and map its errors to job failures.

PyGithub blocks, so each call runs in a thread. Its own retries are disabled: the workflow's retry
policy applies. It is imported at the first call, because it takes a second and 20 MB and only
workers need it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from domain.errors import JobFailure
from domain.failures import FailureCode

if TYPE_CHECKING:
    from github import Github

T = TypeVar("T")

REQUEST_SECONDS = 15
"""GitHub ends a request after 10 s with an error (documented); 15 s is enough to receive it."""


class GitHubClient:
    """The GitHub API with the configured token.

    Args:
        token: called for each request; returns None if no token is configured.
        api_url: for example `https://api.github.com`.
    """

    def __init__(self, token: Callable[[], str | None], api_url: str) -> None:
        self._token = token
        self._api_url = api_url

    async def call(self, use: Callable[[Github], T]) -> T:
        """Run `use` in a thread and return its result.

        Raises:
            JobFailure: there is no token, or GitHub refused the request or did not answer.
        """
        token = self._token()
        if token is None:
            raise JobFailure(FailureCode.GITHUB_TOKEN_MISSING)
        return await asyncio.to_thread(self._call, use, token)

    def _call(self, use: Callable[[Github], T], token: str) -> T:
        from github import Auth, Github, GithubException

        with Github(
            auth=Auth.Token(token),
            base_url=self._api_url,
            timeout=REQUEST_SECONDS,
            retry=None,
            lazy=True,
            # PyGithub pauses 0.25 s between requests and 1 s between writes by default. A job sends
            # only a few requests, and its retry policy waits when GitHub asks for it.
            seconds_between_requests=None,
            seconds_between_writes=None,
        ) as github:
            try:
                return use(github)
            except GithubException as error:
                raise _failure(error) from error
            except OSError as error:
                raise _unavailable(f"could not be reached: {type(error).__name__}") from error
            except Exception as error:
                # A response of another server, such as a proxy, can break PyGithub anywhere.
                raise _unavailable(f"sent an invalid response: {type(error).__name__}") from error


def _unavailable(problem: str) -> JobFailure:
    return JobFailure(FailureCode.GITHUB_UNAVAILABLE, f"GitHub {problem}.", transient=True)


def _failure(error: Exception) -> JobFailure:
    """Map a GitHub error to a failure; the statuses are those of its REST documentation."""
    status = getattr(error, "status", 0)
    reason = _reason(error)
    match status:
        case 401:
            return JobFailure(FailureCode.GITHUB_AUTHENTICATION)
        case 403 | 429 if "rate limit" in reason.lower():
            return JobFailure(
                FailureCode.GITHUB_UNAVAILABLE, f"GitHub's rate limit: {reason}", transient=True
            )
        case 403:
            return JobFailure(
                FailureCode.GITHUB_PERMISSION, f"{FailureCode.GITHUB_PERMISSION.sentence} {reason}"
            )
        case 404:
            return JobFailure(FailureCode.REPOSITORY_NOT_FOUND)
        case 422:
            return JobFailure(
                FailureCode.GITHUB_REFUSED, f"GitHub refused the pull request: {reason}"
            )
        case _:
            return JobFailure(
                FailureCode.GITHUB_UNAVAILABLE,
                f"GitHub answered with status {status}. {reason}",
                transient=True,
            )


def _reason(error: Exception) -> str:
    data = getattr(error, "data", None)
    if not isinstance(data, dict):
        return ""
    details = [
        str(entry.get("message") or f"{entry.get('field')}: {entry.get('code')}")
        for entry in data.get("errors") or []
        if isinstance(entry, dict)
    ]
    return "; ".join([str(data.get("message", "")), *details])[:500]
