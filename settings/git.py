"""Settings of git."""

from __future__ import annotations

from settings.fields import Group, Text, setting


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
