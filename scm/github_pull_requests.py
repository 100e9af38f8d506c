"""Pull requests as PyGithub has them. Everything here blocks and is repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from github import Github
    from github.PullRequest import PullRequest
    from github.Repository import Repository as GithubRepository


@dataclass(frozen=True, slots=True)
class Route:
    """What tells the open pull request of a branch: GitHub allows one from a branch into another.

    `repository` is `owner/name`.
    """

    repository: str
    branch: str
    base: str

    @property
    def head(self) -> str:
        """The branch, as GitHub filters by it."""
        return f"{self.repository.partition('/')[0]}:{self.branch}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pull request as it is to be."""

    route: Route
    title: str
    body: str
    draft: bool


@dataclass(frozen=True, slots=True)
class OpenPull:
    """A pull request that exists."""

    number: int
    url: str
    head_sha: str


def open_or_find(github: Github, proposal: Proposal) -> OpenPull:
    """Return the open pull request of the branch, made now if there is none."""
    from github import GithubException

    route = proposal.route
    remote = github.get_repo(route.repository)
    pull = _find(remote, route)
    if pull is None:
        try:
            pull = remote.create_pull(
                base=route.base,
                head=route.branch,
                title=proposal.title,
                body=proposal.body,
                draft=proposal.draft,
            )
        except GithubException as error:
            # 422 also answers a create whose first reply was lost, so look before giving up.
            pull = _find(remote, route) if error.status == 422 else None
            if pull is None:
                raise
    return OpenPull(pull.number, pull.html_url, pull.head.sha)


def label_and_assign(
    github: Github, repository: str, number: int, labels: Sequence[str], reviewers: Sequence[str]
) -> list[str]:
    """Set labels and ask for reviews, and return what GitHub refused, in sentences.

    What it may not refuse later is raised, to be tried again.
    """
    pull = github.get_repo(repository).get_pull(number)
    return [*_label(pull, labels), *_ask_for_review(pull, reviewers)]


def close(github: Github, route: Route, mark: str) -> bool:
    """Close the open pull request of a branch if its body has `mark`; tell whether it did."""
    pull = _find(github.get_repo(route.repository), route)
    if pull is None or mark not in (pull.body or ""):
        return False
    pull.edit(state="closed")
    return True


def _find(remote: GithubRepository, route: Route) -> PullRequest | None:
    pulls = remote.get_pulls(state="open", head=route.head, base=route.base)
    return next(iter(pulls), None)


def _label(pull: PullRequest, labels: Sequence[str]) -> list[str]:
    from github import GithubException

    missing = set(labels) - {label.name for label in pull.labels}
    if not missing:
        return []
    try:
        pull.add_to_labels(*sorted(missing))
    except GithubException as error:
        return [_notice("The labels were not set", error)]
    return []


def _ask_for_review(pull: PullRequest, reviewers: Sequence[str]) -> list[str]:
    """Ask all at once, and one by one when GitHub refuses that because of some of them."""
    from github import GithubException

    if not reviewers:
        return []
    try:
        _request(pull, reviewers)
    except GithubException as error:
        refusal = _notice(f"{', '.join(reviewers)}: not asked to review", error)
        if len(reviewers) == 1:
            return [refusal]
        return [notice for each in reviewers for notice in _ask_for_review(pull, [each])]
    return []


def _request(pull: PullRequest, reviewers: Sequence[str]) -> None:
    users = [name for name in reviewers if "/" not in name]
    teams = [name.partition("/")[2] for name in reviewers if "/" in name]
    pull.create_review_request(reviewers=users, team_reviewers=teams)


def _notice(what: str, error: Exception) -> str:
    """Return what GitHub refused for good; raise what it may grant later."""
    status = getattr(error, "status", 0)
    data = getattr(error, "data", None)
    reason = str(data.get("message") if isinstance(data, dict) else "")
    if status not in {403, 404, 422} or "rate limit" in reason.lower():
        raise error
    return f"{what}: GitHub answered {status}, {reason[:200] or 'without a reason'}"
