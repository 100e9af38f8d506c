"""A local replacement for GitHub: REST API and smart HTTP over the same bare repositories.

    GITHUB_API_URL     the fake GitHub's URL + `/api`
    GITHUB_SERVER_URL  the fake GitHub's URL

It refuses the same requests as GitHub, and fails on demand. The API shows pushed commits at once,
because every answer is computed from the repositories on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from fakes.github.bare_repository import LogEntry
from fakes.github.faults import (
    Fault,
    LoggedRequest,
    Traffic,
    primary_rate_limit,
    secondary_rate_limit,
)
from fakes.github.git_http import GitHttp, git_operation
from fakes.github.operations import OPERATIONS
from fakes.github.pull_requests import PullRequest
from fakes.github.repository import Repository
from fakes.github.rest import Rest, operation_id, unknown_path
from fakes.github.tokens import TokenGrant
from fakes.server import serving

__all__ = [
    "Fault",
    "FakeGitHub",
    "LogEntry",
    "LoggedRequest",
    "PullRequest",
    "Repository",
    "TokenGrant",
]


class FakeGitHub:
    """A fake GitHub with its repositories. All methods may be called from any thread.

    Args:
        root: a directory for the bare repositories `<owner>/<name>.git`.
        tokens: the grant of each token. The copy in `github.tokens` may be changed at any time;
            a removed token is refused at once.
    """

    def __init__(self, root: Path, tokens: Mapping[str, TokenGrant]) -> None:
        self.root = root.absolute()
        self.tokens = dict(tokens)
        self.url = ""
        self._repositories: dict[str, Repository] = {}
        self._git = GitHttp(self.root, self._find, self.tokens)
        rest = Rest(OPERATIONS, self._find, self.tokens)
        self._api = Router(rest.routes)
        self.app = Traffic(self._dispatch, self._operation)

    @contextlib.contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve on 127.0.0.1 while the context lasts. Yields the URL and stores it in `url`."""
        with serving(self.app, port) as url:
            self.url = url
            yield url

    @property
    def api_url(self) -> str:
        """Return the value for GITHUB_API_URL."""
        return f"{self.url}/api"

    def create_repository(
        self,
        owner: str,
        name: str,
        files: Mapping[str, str | bytes | None] | None = None,
        default_branch: str = "main",
    ) -> Repository:
        """Create a private repository with one commit.

        Args:
            owner: the user or organisation.
            name: the name without `.git`.
            files: the content of each path. By default a README; an empty mapping creates a
                repository without commits.
            default_branch: the branch that a clone checks out.
        """
        if self._find(owner, name) is not None:
            raise ValueError(
                f"The fake GitHub already has a repository {owner}/{name}. Use another name."
            )
        repository = Repository(self.root, owner, name, default_branch)
        repository.bare.create(default_branch)
        content = {"README.md": f"# {name}\n"} if files is None else files
        if content:
            repository.bare.commit(default_branch, None, content, "Initial commit")
        self._repositories[repository.full_name.lower()] = repository
        return repository

    def repository(self, owner: str, name: str) -> Repository:
        """Return a repository, for example to change its settings."""
        repository = self._find(owner, name)
        if repository is None:
            raise LookupError(f"The fake GitHub has no repository {owner}/{name}. Create it first.")
        return repository

    def commit(
        self,
        owner: str,
        name: str,
        branch: str,
        files: Mapping[str, str | bytes | None],
        message: str,
    ) -> str:
        """Commit to a branch as another user, and return the sha.

        Args:
            owner: the repository's owner.
            name: the repository's name.
            branch: the branch to move; a new branch starts at the default branch.
            files: the new content of each path; None deletes it.
            message: the commit message.
        """
        repository = self.repository(owner, name)
        branches = repository.bare.branches()
        parent = branches.get(branch, branches.get(repository.default_branch))
        return repository.bare.commit(branch, parent, files, message)

    def branches(self, owner: str, name: str) -> dict[str, str]:
        """Return the head commit of each branch."""
        return self.repository(owner, name).bare.branches()

    def log(self, owner: str, name: str, branch: str) -> list[LogEntry]:
        """Return a branch's history, newest first."""
        return self.repository(owner, name).bare.log(branch)

    def read_file(self, owner: str, name: str, ref: str, path: str) -> str:
        """Return the text of a file at a branch or commit."""
        return self.repository(owner, name).bare.read(ref, path)

    def pull_requests(self, owner: str, name: str) -> list[PullRequest]:
        """Return all pull requests, oldest first, with the current state of the branches."""
        repository = self.repository(owner, name)
        with repository.lock:
            return repository.pulls.all()

    def fail_next(
        self,
        pattern: str,
        status: int | None = 502,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        body: str | Mapping[str, Any] | None = None,
        after: bool = False,
        delay: float = 0.0,
    ) -> None:
        """Make the next matching requests fail.

        Args:
            pattern: a shell pattern for the path, or for GitHub's id of the operation
                (`pulls/create`, `pulls/*`). Git operations are `git-upload-pack:refs`,
                `git-upload-pack`, `git-receive-pack:refs` and `git-receive-pack`.
            status: the HTTP status of the answer; None drops the connection.
            times: number of requests that fail.
            headers: additional headers of the answer.
            body: the answer; a mapping is sent as JSON.
            after: perform the request first, so that only the answer is lost.
            delay: seconds to wait before the answer.
        """
        self.app.add(Fault(pattern, status, times, headers or {}, body, after, delay))

    def delay_next(self, pattern: str, seconds: float, times: int = 1) -> None:
        """Delay the next matching requests, then perform them normally."""
        self.app.add(Fault(pattern, times=times, delay=seconds, answers=False))

    def limit_next(
        self, pattern: str = "/api/*", *, secondary: bool = False, seconds: int = 60, times: int = 1
    ) -> None:
        """Answer the next matching requests with a rate limit.

        Args:
            pattern: as for `fail_next`; every REST request by default.
            secondary: the limit on bursts (`retry-after`) instead of the limit per hour
                (`x-ratelimit-remaining: 0`).
            seconds: the wait that the answer asks for.
            times: number of requests that fail.
        """
        limit = secondary_rate_limit if secondary else primary_rate_limit
        self.app.add(limit(pattern, seconds, times))

    @property
    def pending_faults(self) -> list[Fault]:
        """Return the faults that still apply to further requests."""
        return self.app.pending()

    def clear_faults(self) -> None:
        """Remove all pending faults."""
        self.app.clear()

    @property
    def requests(self) -> list[LoggedRequest]:
        """Return the latest 10,000 answered requests, oldest first; no headers, no queries."""
        return self.app.log()

    def _find(self, owner: str, name: str) -> Repository | None:
        return self._repositories.get(f"{owner}/{name}".lower())

    def _operation(self, scope: Scope) -> str | None:
        query = scope["query_string"].decode("ascii", "replace")
        git = git_operation(scope["method"], scope["path"], query)
        return git or operation_id(self._api, scope)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operation(scope)
        if operation is None:
            await unknown_path()(scope, receive, send)
        elif operation.startswith("git-"):
            await self._git(scope, receive, send)
        else:
            await self._api(scope, receive, send)
