"""Pull requests: their state, and GitHub's rules for opening, changing and closing them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from fakes.github.bare_repository import BareRepository
from fakes.github.errors import invalid, not_found


@dataclass
class PullRequest:
    """One pull request. Times are seconds since the epoch.

    `head_sha` and `base_sha` follow the branches until the pull request is closed.
    """

    number: int
    author: str
    title: str
    body: str | None
    head: str
    base: str
    head_sha: str
    base_sha: str
    draft: bool = False
    state: Literal["open", "closed"] = "open"
    labels: list[str] = field(default_factory=list)
    reviewers: list[str] = field(default_factory=list)
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    closed_at: float | None = None

    def close(self) -> None:
        """Close the pull request. Idempotent."""
        if self.state == "open":
            self.state = "closed"
            self.closed_at = self.updated_at = time.time()


class PullRequests:
    """All pull requests of one repository, updated from its branches.

    Args:
        owner: the repository's owner, as in `owner:branch`.
        bare: the repository with the branches.
    """

    def __init__(self, owner: str, bare: BareRepository) -> None:
        self._owner = owner
        self._bare = bare
        self._all: list[PullRequest] = []

    def all(self) -> list[PullRequest]:
        """Return all pull requests, oldest first, with the current state of the branches."""
        branches = self._bare.branches()
        for pull in self._all:
            _follow(pull, branches)
        return list(self._all)

    @property
    def open_count(self) -> int:
        """Return the number of pull requests that were open at the last update."""
        return sum(pull.state == "open" for pull in self._all)

    def get(self, number: str) -> PullRequest:
        """Return one pull request, with the current state of the branches."""
        for pull in self.all():
            if str(pull.number) == number:
                return pull
        raise not_found()

    def open(
        self, author: str, title: str, body: str | None, head: str, base: str, draft: bool
    ) -> PullRequest:
        """Open a pull request, or refuse as GitHub does.

        Args:
            author: the login of the user who opens it.
            title: its title.
            body: its description.
            head: a branch, or `owner:branch`.
            base: the branch it is to be merged into.
            draft: whether it is a draft.
        """
        branches = self._bare.branches()
        head = head.removeprefix(f"{self._owner}:")
        _require_branch("head", head, branches)
        _require_branch("base", base, branches)
        self._require_commits(base, head, branches)
        self._require_first(head, base)
        number = len(self._all) + 1
        pull = PullRequest(
            number, author, title, body, head, base, branches[head], branches[base], draft
        )
        self._all.append(pull)
        return pull

    def reopen(self, pull: PullRequest) -> None:
        """Open a closed pull request again, or refuse as GitHub does."""
        if pull.state == "open":
            return
        if pull.head not in self._bare.branches():
            reason = f"state cannot be changed. The {pull.head} branch has been deleted."
            raise invalid("state", "invalid", reason)
        self._require_first(pull.head, pull.base)
        pull.state, pull.closed_at = "open", None

    def rebase(self, pull: PullRequest, base: str) -> None:
        """Change the base branch of a pull request."""
        branches = self._bare.branches()
        _require_branch("base", base, branches)
        self._require_commits(base, pull.head, branches)
        pull.base, pull.base_sha = base, branches[base]

    def _require_commits(self, base: str, head: str, branches: dict[str, str]) -> None:
        if self._bare.ahead(branches[base], branches[head]) == 0:
            raise invalid("", "custom", f"No commits between {base} and {head}")

    def _require_first(self, head: str, base: str) -> None:
        for pull in self.all():
            if (pull.state, pull.head, pull.base) == ("open", head, base):
                reason = f"A pull request already exists for {self._owner}:{head}."
                raise invalid("", "custom", reason)


def _require_branch(field_name: str, branch: str, branches: dict[str, str]) -> None:
    if branch not in branches:
        raise invalid(field_name)


def _follow(pull: PullRequest, branches: dict[str, str]) -> None:
    """GitHub closes a pull request when either of its branches is deleted."""
    if pull.state == "closed":
        return
    pull.head_sha = branches.get(pull.head, pull.head_sha)
    pull.base_sha = branches.get(pull.base, pull.base_sha)
    if pull.head not in branches or pull.base not in branches:
        pull.close()
