"""Pull requests on GitHub, through PyGithub."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from domain.errors import JobFailure
from scm.github_client import GitHubClient
from scm.protocol import NewPullRequest, PullRequest, PullRequestKey

if TYPE_CHECKING:
    from github import Github
    from github.PullRequest import PullRequest as GithubPullRequest
    from github.Repository import Repository as GithubRepository

_PERMANENT = frozenset({403, 404, 422})
"""Statuses that a retry does not change, except for a rate limit."""

log = logging.getLogger(__name__)


class GitHub:
    """The `CodeHost` of github.com and GitHub Enterprise."""

    def __init__(self, client: GitHubClient) -> None:
        self._client = client

    async def viewer(self) -> str | None:
        """Return the login of the token's owner; None if the token does not work."""
        try:
            return await self._client.call(lambda github: github.get_user().login)
        except JobFailure as failure:
            log.warning("GitHub access: %s", failure.message)
            return None

    async def open_or_find(self, new: NewPullRequest) -> PullRequest:
        """Return the open pull request of the branch; open one if there is none."""
        return await self._client.call(lambda github: _open_or_find(github, new))

    async def label_and_review(
        self, repository: str, number: int, labels: Sequence[str], reviewers: Sequence[str]
    ) -> list[str]:
        """Set labels and request reviews. Return the permanent refusals of GitHub."""

        def apply(github: Github) -> list[str]:
            pull = github.get_repo(repository).get_pull(number)
            return [*_add_labels(pull, labels), *_request_reviews(pull, reviewers)]

        return await self._client.call(apply)

    async def close(self, key: PullRequestKey, mark: str) -> bool:
        """Close the open pull request if its body contains `mark`; return whether it did."""

        def apply(github: Github) -> bool:
            pull = _find(github.get_repo(key.repository), key)
            if pull is None or mark not in (pull.body or ""):
                return False
            pull.edit(state="closed")
            return True

        return await self._client.call(apply)


def _open_or_find(github: Github, new: NewPullRequest) -> PullRequest:
    from github import GithubException

    key = new.key
    repository = github.get_repo(key.repository)
    pull = _find(repository, key)
    if pull is None:
        try:
            pull = repository.create_pull(
                base=key.base, head=key.branch, title=new.title, body=new.body, draft=new.draft
            )
        except GithubException as error:
            # GitHub also answers 422 if an earlier request succeeded but its response was lost.
            pull = _find(repository, key) if error.status == 422 else None
            if pull is None:
                raise
    return PullRequest(pull.number, pull.html_url, pull.head.sha)


def _find(repository: GithubRepository, key: PullRequestKey) -> GithubPullRequest | None:
    # GitHub filters by `owner:branch`.
    head = f"{key.repository.partition('/')[0]}:{key.branch}"
    return next(iter(repository.get_pulls(state="open", head=head, base=key.base)), None)


def _add_labels(pull: GithubPullRequest, labels: Sequence[str]) -> list[str]:
    from github import GithubException

    missing = set(labels) - {label.name for label in pull.labels}
    if not missing:
        return []
    try:
        pull.add_to_labels(*sorted(missing))
    except GithubException as error:
        return [_notice("The labels were not set", error)]
    return []


def _request_reviews(pull: GithubPullRequest, reviewers: Sequence[str]) -> list[str]:
    from github import GithubException

    if not reviewers:
        return []
    users = [name for name in reviewers if "/" not in name]
    teams = [name.partition("/")[2] for name in reviewers if "/" in name]
    try:
        pull.create_review_request(reviewers=users, team_reviewers=teams)
    except GithubException as error:
        notice = _notice(f"{', '.join(reviewers)}: not asked to review", error)
        if len(reviewers) == 1:
            return [notice]
        # GitHub refuses the whole request because of one reviewer, so ask one at a time.
        return [text for reviewer in reviewers for text in _request_reviews(pull, [reviewer])]
    return []


def _notice(problem: str, error: Exception) -> str:
    """Return a sentence about a permanent refusal; raise any other error for a retry."""
    status = getattr(error, "status", 0)
    data = getattr(error, "data", None)
    reason = str(data.get("message") if isinstance(data, dict) else "")
    if status not in _PERMANENT or "rate limit" in reason.lower():
        raise error
    return f"{problem}: GitHub answered {status}, {reason[:200] or 'without a reason'}"
