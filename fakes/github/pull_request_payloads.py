"""The JSON that GitHub sends for pull requests and what belongs to them."""

from __future__ import annotations

from fakes.github.payloads import Json, Site, github_date, identity, repository, user
from fakes.github.pull_requests import PullRequest
from fakes.github.repository import Repository
from fakes.github.tokens import TokenGrant


def pull_request_simple(
    site: Site, owner: Repository, pull: PullRequest, grant: TokenGrant
) -> Json:
    """Return a pull request as lists have it; `owner` is the repository it belongs to."""
    home = repository(site, owner, grant)
    return {
        **identity("PullRequest", _name(owner, pull)),
        **_links(site, owner, pull),
        "number": pull.number,
        "state": pull.state,
        "locked": False,
        "title": pull.title,
        "body": pull.body,
        "user": user(site, pull.author),
        "author_association": "COLLABORATOR",
        "labels": [label(site, owner, name) for name in pull.labels],
        "milestone": None,
        "assignee": None,
        "assignees": [],
        "requested_reviewers": [user(site, login) for login in pull.reviewers],
        "requested_teams": [],
        "draft": pull.draft,
        "auto_merge": None,
        "created_at": github_date(pull.created_at),
        "updated_at": github_date(pull.updated_at),
        "closed_at": github_date(pull.closed_at) if pull.closed_at else None,
        "merged_at": None,
        "merge_commit_sha": None,
        "head": _end(home, pull.head, pull.head_sha),
        "base": _end(home, pull.base, pull.base_sha),
    }


def pull_request(site: Site, owner: Repository, pull: PullRequest, grant: TokenGrant) -> Json:
    """Return a pull request in full, with what it changes now.

    `mergeable` is null, as on GitHub while it has not been computed.
    """
    changed = owner.bare.changed_lines(pull.base_sha, pull.head_sha)
    return {
        **pull_request_simple(site, owner, pull, grant),
        "merged": False,
        "merged_by": None,
        "mergeable": None,
        "rebaseable": None,
        "mergeable_state": "unknown",
        "maintainer_can_modify": False,
        "comments": 0,
        "review_comments": 0,
        "commits": owner.bare.ahead(pull.base_sha, pull.head_sha),
        "additions": sum(added for added, _ in changed),
        "deletions": sum(removed for _, removed in changed),
        "changed_files": len(changed),
    }


def label(site: Site, owner: Repository, name: str) -> Json:
    """Return a label."""
    return {
        **identity("Label", f"{owner.full_name}:{name}"),
        "url": site.repository(owner, f"/labels/{name}"),
        "name": name,
        "description": "",
        "color": "ededed",
        "default": False,
    }


def _name(owner: Repository, pull: PullRequest) -> str:
    return f"{owner.full_name}#{pull.number}"


def _end(home: Json, branch: str, sha: str) -> Json:
    """Return the head or the base of a pull request."""
    label = f"{home['owner']['login']}:{branch}"
    return {"label": label, "ref": branch, "sha": sha, "user": home["owner"], "repo": home}


def _links(site: Site, owner: Repository, pull: PullRequest) -> Json:
    page = site.html(f"{owner.full_name}/pull/{pull.number}")
    url = site.repository(owner, f"/pulls/{pull.number}")
    issue = site.repository(owner, f"/issues/{pull.number}")
    resources = {
        "issue": issue,
        "comments": f"{issue}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": site.repository(owner, "/pulls/comments{/number}"),
        "commits": f"{url}/commits",
        "statuses": site.repository(owner, f"/statuses/{pull.head_sha}"),
    }
    named = {"self": url, "html": page, **resources}
    return {
        "url": url,
        "html_url": page,
        "diff_url": f"{page}.diff",
        "patch_url": f"{page}.patch",
        **{f"{name}_url": link for name, link in resources.items()},
        "_links": {name: {"href": link} for name, link in named.items()},
    }
