"""Clients, their GitHub repositories, and GitHub's rules for names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from domain.errors import InvalidRequest
from domain.jobs import JobState

_OWNER = re.compile(r"(?=.{1,39}\Z)(?!-)(?!.*--)[A-Za-z0-9-]+(?<!-)(_[A-Za-z0-9]+)?")
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True)
class Client:
    """A customer with repositories and jobs."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Repository:
    """A GitHub repository of a client. `url` is its web page."""

    id: str
    client_id: str | None
    owner_name: str
    repo_name: str
    default_branch: str
    url: str | None
    created_at: datetime
    updated_at: datetime
    provider: str = "github"

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner_name}/{self.repo_name}"


@dataclass(frozen=True, slots=True)
class ClientDetails:
    """A client with its GitHub repositories, oldest first."""

    client: Client
    repositories: list[Repository]


def is_owner_name(name: str) -> bool:
    """Return whether GitHub allows the name for a user or organisation.

    Letters, digits and single inner dashes, at most 39; enterprise users end in `_shortcode`.
    """
    return bool(_OWNER.fullmatch(name))


def validate_owner_name(name: str) -> str:
    """Return `name` if GitHub allows it for a user or organisation.

    Raises:
        InvalidRequest: GitHub does not allow it.
    """
    if not is_owner_name(name):
        raise InvalidRequest(
            f"githubOrg {name[:80]!r} is not a GitHub owner name: use letters, digits and single "
            "dashes, at most 39 characters."
        )
    return name


def validate_repository_name(name: str) -> str:
    """Return `name` if GitHub allows it for a repository.

    Letters, digits, dot, dash and underscore, at most 100; not `.`, `..` or ending in `.git`.

    Raises:
        InvalidRequest: GitHub does not allow it.
    """
    if not _REPOSITORY.fullmatch(name) or name in {".", ".."} or name.lower().endswith(".git"):
        raise InvalidRequest(
            f"githubRepo {name[:120]!r} is not a GitHub repository name: use letters, digits, '.', "
            "'-' and '_', at most 100 characters, without '.git' at the end."
        )
    return name


def base_branch(job: JobState, repository: Repository) -> str:
    """Return the branch that a job starts from, which is the target of its pull request."""
    return job.options.base_branch or repository.default_branch
