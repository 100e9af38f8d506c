"""Calling GitHub through PyGithub, and what its refusals mean for a job.

PyGithub blocks, so each call runs in a thread; its own retries are off, the workflow's policy
retries instead. It is imported at the first call: it takes a second and 20 MB, and only workers
need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from domain.errors import JobFailure
from domain.failures import FailureCode

if TYPE_CHECKING:
    from github import Github

T = TypeVar("T")

REQUEST_SECONDS = 15
"""GitHub answers within 10 s or gives up itself (its documented limit); 15 s sees that answer."""

log = logging.getLogger(__name__)


class GithubAccess:
    """The GitHub API with the configured token.

    Args:
        token: read at each call; None when there is none.
        api_url: for example `https://api.github.com`.
    """

    def __init__(self, token: Callable[[], str | None], api_url: str) -> None:
        self._token = token
        self._api_url = api_url

    async def call(self, use: Callable[[Github], T]) -> T:
        """Return what `use` returns; it runs in a thread.

        Raises:
            JobFailure: there is no token, GitHub refused, or did not answer.
        """
        token = self._token()
        if token is None:
            raise JobFailure(FailureCode.GITHUB_TOKEN_MISSING)
        return await asyncio.to_thread(self._call, use, token)

    async def user(self) -> str | None:
        """Return the login the token belongs to; None when it does not work."""
        try:
            return await self.call(lambda github: github.get_user().login)
        except JobFailure as failure:
            log.warning("GitHub access: %s", failure.message)
            return None

    def _call(self, use: Callable[[Github], T], token: str) -> T:
        from github import Auth, Github, GithubException

        with Github(
            auth=Auth.Token(token),
            base_url=self._api_url,
            timeout=REQUEST_SECONDS,
            retry=None,
            lazy=True,
            # PyGithub would pause 0.25 s between requests and 1 s between writes, for callers that
            # make many. A job makes a handful, and its policy waits when GitHub asks for it.
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
                # What is no answer of GitHub's, such as a proxy's page, breaks PyGithub anywhere.
                raise _unavailable(f"sent what it never sends: {type(error).__name__}") from error


def _unavailable(why: str) -> JobFailure:
    return JobFailure(FailureCode.GITHUB_UNAVAILABLE, f"GitHub {why}.", transient=True)


def _failure(error: Exception) -> JobFailure:
    """Return what GitHub's refusal means; statuses as its REST documentation lists them."""
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
