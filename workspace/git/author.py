"""Who made a commit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """A name and an e-mail address."""

    name: str
    email: str

    def environment(self) -> dict[str, str]:
        """Return the variables that make git commit in this name, whatever its configuration."""
        return identity_environment(self.name, self.email)


def identity_environment(name: str, email: str) -> dict[str, str]:
    """Return the variables that make git commit in this name, whatever its configuration."""
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }


ORCHESTRATOR = Identity("Claude Code Orchestrator", "orchestrator@localhost")
"""Who makes the commits that keep work; they are never pushed."""
