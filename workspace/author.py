"""Authors of commits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """The name and e-mail address of an author."""

    name: str
    email: str

    def environment(self) -> dict[str, str]:
        """Return variables that set author and committer and override git's configuration."""
        return identity_environment(self.name, self.email)


def identity_environment(name: str, email: str) -> dict[str, str]:
    """Return variables that set author and committer and override git's configuration."""
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }


ORCHESTRATOR = Identity("Claude Code Orchestrator", "orchestrator@localhost")
"""The author of salvage commits, which are never pushed."""
