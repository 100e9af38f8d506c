"""Settings of git and GitHub."""

from __future__ import annotations

from settings.fields import Flag, Group, Names, Secret, Text, Url, setting


class GithubSettings(Group):
    """GitHub's addresses, the token, and defaults of pull requests."""

    title = "GitHub"

    token: Secret = setting("GITHUB_TOKEN", None, "Token to fetch, push and open pull requests")
    api_url: Url = setting("GITHUB_API_URL", "https://api.github.com", "For GitHub Enterprise")
    server_url: Url = setting("GITHUB_SERVER_URL", "https://github.com", "For GitHub Enterprise")
    pull_request_draft: Flag = setting(
        "PULL_REQUEST_DRAFT", "false", "Whether pull requests are opened as drafts"
    )
    pull_request_labels: Names = setting(
        "PULL_REQUEST_LABELS", "", "Labels of pull requests, separated by commas"
    )
    pull_request_reviewers: Names = setting(
        "PULL_REQUEST_REVIEWERS",
        "",
        "Reviewers of pull requests: users or `org/team`, separated by commas",
    )


class GitSettings(Group):
    """Author of the commits."""

    title = "Git"

    author_name: Text = setting(
        "GIT_AUTHOR_NAME", "Claude Code Orchestrator", "Name of the commits' author"
    )
    author_email: Text = setting(
        "GIT_AUTHOR_EMAIL",
        "claude-code-orchestrator@users.noreply.github.com",
        "Email address of the commits' author",
    )
