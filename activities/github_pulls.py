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
    labels: tuple[str, ...]
    reviewers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenPull:
    """A pull request that exists; `notices` say what was asked for and could not be had."""

    number: int
    url: str
    head_sha: str
    notices: tuple[str, ...]


def open_or_find(github: Github, proposal: Proposal) -> OpenPull:
    """Return the open pull request of the branch, made now if there is none.

    Labels and reviewers that GitHub refuses are no reason to have no pull request.
    """
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
    notices = [*_label(pull, proposal.labels), *_ask_for_review(pull, proposal.reviewers)]
    return OpenPull(pull.number, pull.html_url, pull.head.sha, tuple(notices))


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
    """Ask one by one, because GitHub refuses all when it refuses one."""
    from github import GithubException

    notices = []
    for reviewer in reviewers:
        team = reviewer.partition("/")[2]
        try:
            if team:
                pull.create_review_request(team_reviewers=[team])
            else:
                pull.create_review_request(reviewers=[reviewer])
        except GithubException as error:
            notices.append(_notice(f"{reviewer} was not asked to review", error))
    return notices


def _notice(what: str, error: Exception) -> str:
    """Return what GitHub refused; what it may not refuse later is raised, to be tried again."""
    status = getattr(error, "status", 0)
    if status not in {403, 404, 422}:
        raise error
    data = getattr(error, "data", None)
    reason = data.get("message") if isinstance(data, dict) else None
    return f"{what}: GitHub answered {status}, {str(reason or 'without a reason')[:200]}"
