"""The seam for another code host: the operations on pull requests that a job needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PullRequestKey:
    """Identifies an open pull request: there is at most one from a branch into another.

    `repository` is `owner/name`.
    """

    repository: str
    branch: str
    base: str


@dataclass(frozen=True, slots=True)
class NewPullRequest:
    """The contents of a pull request to open."""

    key: PullRequestKey
    title: str
    body: str
    draft: bool


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request of the code host; `head_sha` is the newest commit that it shows."""

    number: int
    url: str
    head_sha: str


class CodeHost(Protocol):
    """A service that hosts repositories. All methods are idempotent.

    Except for `viewer`, a method raises JobFailure if the token is missing, or if the code host
    refuses the request or does not answer.
    """

    async def viewer(self) -> str | None:
        """Return the login of the token's owner; None if the token does not work."""

    async def open_or_find(self, new: NewPullRequest) -> PullRequest:
        """Return the open pull request of the branch; open one if there is none."""

    async def label_and_review(
        self, repository: str, number: int, labels: Sequence[str], reviewers: Sequence[str]
    ) -> list[str]:
        """Set labels and request reviews.

        Args:
            repository: `owner/name`.
            number: of the pull request.
            labels: added to the existing ones.
            reviewers: logins, and `organization/team` for teams.

        Returns:
            A sentence for each part that the code host refused permanently.
        """

    async def close(self, key: PullRequestKey, mark: str) -> bool:
        """Close the open pull request if its body contains `mark`; return whether it did."""
