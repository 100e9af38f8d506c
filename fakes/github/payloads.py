"""The JSON that GitHub sends for users, repositories and pull requests.

Field names and types follow GitHub's OpenAPI description; a test compares them with it.
"""

from __future__ import annotations

import base64
import zlib
from datetime import UTC, datetime
from typing import Any

from fakes.github.pull_requests import PullRequest
from fakes.github.repository import RESERVED_OWNER, Repository
from fakes.github.tokens import TokenGrant

Json = dict[str, Any]

_USER_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}
_REPOSITORY_LINKS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}
_ZERO_COUNTS = (
    "forks", "forks_count", "size", "stargazers_count", "watchers", "watchers_count",
)  # fmt: skip
_FEATURES = (
    "has_issues", "has_projects", "has_wiki", "has_pages", "has_downloads", "has_discussions",
)  # fmt: skip


class Site:
    """Builds the links in answers.

    Args:
        url: the URL of the fake GitHub, without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def html(self, path: str) -> str:
        """Return the link to a page."""
        return f"{self._url}/{path}"

    def api(self, path: str) -> str:
        """Return the link to a REST resource."""
        return f"{self._url}/{RESERVED_OWNER}/{path}"

    def repository(self, repository: Repository, path: str = "") -> str:
        """Return the link to a REST resource of a repository; `path` starts with a slash."""
        return self.api(f"repos/{repository.full_name}{path}")


def identity(kind: str, name: str) -> Json:
    """Return an invented `id` and `node_id`, which are always the same for the same name."""
    number = zlib.crc32(f"{kind}:{name}".encode())
    return {"id": number, "node_id": base64.b64encode(f"{kind}:{number}".encode()).decode()}


def github_date(seconds: float) -> str:
    """Format a time as GitHub does, in UTC and whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def user(site: Site, login: str) -> Json:
    """Return a user in the short form that other objects contain."""
    url = site.api(f"users/{login}")
    return {
        "login": login,
        **identity("User", login),
        "avatar_url": site.html(f"{login}.png"),
        "gravatar_id": "",
        "url": url,
        "html_url": site.html(login),
        **{name: url + path for name, path in _USER_LINKS.items()},
        "type": "User",
        "site_admin": False,
    }


def authenticated_user(site: Site, login: str) -> Json:
    """Return the full form of the token's user."""
    facts = ("company", "blog", "location", "email", "hireable", "bio")
    counts = (
        "public_repos", "public_gists", "followers", "following", "private_gists",
        "total_private_repos", "owned_private_repos", "disk_usage", "collaborators",
    )  # fmt: skip
    return {
        **user(site, login),
        "name": login,
        **dict.fromkeys(facts),
        **dict.fromkeys(counts, 0),
        "created_at": github_date(0),
        "updated_at": github_date(0),
        "two_factor_authentication": True,
    }


def repository(site: Site, repository: Repository, grant: TokenGrant) -> Json:
    """Return a repository in the short form, with the permissions of the token."""
    url = site.repository(repository)
    page = site.html(repository.full_name)
    return {
        **identity("Repository", repository.full_name),
        "name": repository.name,
        "full_name": repository.full_name,
        "owner": user(site, repository.owner),
        "private": repository.private,
        "visibility": "private" if repository.private else "public",
        "html_url": page,
        "description": None,
        "fork": False,
        "url": url,
        **{name: url + path for name, path in _REPOSITORY_LINKS.items()},
        "clone_url": f"{page}.git",
        "git_url": f"{page}.git",
        "ssh_url": f"{page}.git",
        "svn_url": page,
        "mirror_url": None,
        "homepage": None,
        "language": None,
        "license": None,
        "default_branch": repository.default_branch,
        "archived": repository.archived,
        "disabled": False,
        **dict.fromkeys(_ZERO_COUNTS, 0),
        "open_issues": repository.pulls.open_count,
        "open_issues_count": repository.pulls.open_count,
        **dict.fromkeys(_FEATURES, False),
        "permissions": _permissions(repository.writable_by(grant)),
        "pushed_at": github_date(repository.created_at),
        "created_at": github_date(repository.created_at),
        "updated_at": github_date(repository.created_at),
    }


def _permissions(writes: bool) -> dict[str, bool]:
    return {"admin": False, "maintain": False, "push": writes, "triage": writes, "pull": True}


def full_repository(site: Site, owner: Repository, grant: TokenGrant) -> Json:
    """Return a repository in the full form."""
    return {**repository(site, owner, grant), "network_count": 0, "subscribers_count": 0}


def pull_request_simple(
    site: Site, owner: Repository, pull: PullRequest, grant: TokenGrant
) -> Json:
    """Return a pull request in the form of lists; `owner` is its repository."""
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
    """Return a pull request in the full form, with its current changes.

    `mergeable` is null, as on GitHub before it is computed.
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
    """Return a label with a color and description like those of a new label."""
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
