"""A repository of the fake GitHub: git data, pull requests and settings."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from fakes.github.bare_repository import BareRepository
from fakes.github.pull_requests import PullRequests
from fakes.github.tokens import TokenGrant

_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
# The first path segment of the REST API, for which GitHub uses a separate host.
RESERVED_OWNER = "api"


class Repository:
    """One repository; `archived`, `private` and `protected` may be set at any time.

    Args:
        root: the directory of all repositories.
        owner: the user or organisation.
        name: the name without `.git`.
        default_branch: the branch a clone checks out.
    """

    def __init__(self, root: Path, owner: str, name: str, default_branch: str) -> None:
        if not _OWNER.fullmatch(owner) or owner == RESERVED_OWNER or not _NAME.fullmatch(name):
            raise ValueError(f"{owner}/{name} is not a repository name that GitHub would accept.")
        self.owner = owner
        self.name = name
        self.default_branch = default_branch
        self.private = True
        self.archived = False
        self.protected: set[str] = set()
        self.created_at = time.time()
        self.bare = BareRepository(root / owner / f"{name}.git")
        self.pulls = PullRequests(owner, self.bare)
        # Requests to one repository are serialized, so that check-then-act is safe.
        self.lock = threading.RLock()

    @property
    def full_name(self) -> str:
        """Return `owner/name`."""
        return f"{self.owner}/{self.name}"

    def readable_by(self, grant: TokenGrant) -> bool:
        """Return whether the token may read the repository."""
        return not self.private or grant.sees(self.full_name)

    def writable_by(self, grant: TokenGrant) -> bool:
        """Return whether the token may push and open pull requests."""
        return grant.writes and grant.sees(self.full_name)
