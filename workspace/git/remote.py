"""Talk to the remote. Only these git commands may use the token."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from domain.configuration.isolation import Network as Reachable
from sandbox.containment import Reach
from sandbox.gateway import Gateway
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.policy import Policy
from workspace.git.credentials import GitCredentials
from workspace.git.refs import HEADS, TRACKING, is_ancestor, list_refs
from workspace.git.runner import NETWORK_SECONDS, Git, GitError, GitLocation, Setting
from workspace.git.scratch_repository import scratch_repository
from workspace.git.text import lines

_ASK_SECONDS = 120.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Servers send keep-alives every 5 s (uploadpack.keepAlive), so this much silence is a fault.
_STALL: tuple[Setting, ...] = (("http.lowSpeedLimit", "1"), ("http.lowSpeedTime", "120"))


class Network:
    """Fetches from, pushes to and queries the remote, each time from a private repository.

    Args:
        git: runs the commands.
        credentials: the token and its server.
        scratch: a directory for the private repositories.

    Attributes:
        gateway: the proxy of commands that follow addresses in files of a repository.
    """

    def __init__(self, git: Git, credentials: GitCredentials, scratch: Path) -> None:
        self._git = git
        self._credentials = credentials
        self._scratch = scratch
        self.gateway = _gateway(credentials.server_url)
        scheme = urlsplit(credentials.server_url).scheme
        schemes = {"https", scheme} if scheme in {"http", "https"} else {"https", "file"}
        self._protocols = [
            ("protocol.allow", "never"),
            *((f"protocol.{each}.allow", "always") for each in sorted(schemes)),
        ]

    async def update_submodules(self, place: GitLocation, repositories: Collection[str]) -> None:
        """Check out the submodules of a worktree, at any depth.

        Args:
            place: a fresh worktree.
            repositories: the repositories the token is offered for, as `owner/name`.
        """
        await self._follow(
            place, repositories, "submodule", "--quiet", "update", "--recursive",
            "--checkout",
            more=self._submodule_settings(),
        )  # fmt: skip

    async def fetch_lfs_files(
        self, url: str, mirror: Path, sha: str, repositories: Collection[str]
    ) -> None:
        """Fetch the LFS files of a commit into the mirror.

        Args:
            url: the repository.
            mirror: the bare repository with the commit. The files go to `lfs/` in it.
            sha: the commit. Its `.lfsconfig` is used.
            repositories: the repositories the token is offered for, as `owner/name`.
        """
        async with self._with_lfs(mirror, sha, {}) as place:
            await self._follow(
                place, repositories, "lfs", "fetch", "origin", "HEAD", more=_lfs(url, mirror)
            )

    async def fetch(self, url: str, objects: Path, known: Mapping[str, str]) -> dict[str, str]:
        """Fetch the commits of all branches into `objects`.

        Args:
            url: the repository.
            objects: the object store to fetch into.
            known: the result of the last fetch.

        Returns:
            The sha of every branch, by `refs/remotes/origin/<branch>`.
        """
        async with self._private(objects, known) as place:
            await self._talk(place, "fetch", *_fetch_options(), url, f"+{HEADS}*:{TRACKING}*")
            return await list_refs(self._git, place, TRACKING)

    async def fetch_commit(self, url: str, objects: Path, sha: str) -> None:
        """Fetch one commit into `objects`, even if no branch contains it any more."""
        async with self._private(objects) as place:
            await self._talk(place, "fetch", *_fetch_options(), url, sha)

    async def branch_head(self, url: str, branch: str) -> str | None:
        """Return the sha of a branch of the remote; None if there is no such branch."""
        wanted = HEADS + branch
        async with self._private(self._scratch) as place:
            listing = await self._ask(place, "ls-remote", "--quiet", "--heads", "--", url, wanted)
        found = (line.split("\t", 1) for line in lines(listing))
        return next((sha for sha, name in found if name == wanted), None)

    async def default_branch(self, url: str) -> str | None:
        """Return the branch of the remote's HEAD; None if no such branch exists."""
        async with self._private(self._scratch) as place:
            listing = await self._ask(place, "ls-remote", "--quiet", "--symref", "--", url, "HEAD")
        for line in lines(listing):
            target, _, name = line.partition("\t")
            if name == "HEAD" and target.startswith(f"ref: {HEADS}"):
                return target.removeprefix(f"ref: {HEADS}")
        return None

    async def push(
        self, url: str, objects: Path, sha: str | None, branch: str, expected: str | None
    ) -> None:
        """Set a branch of the remote to `sha` if it is still at `expected`.

        Git also accepts pushes here that are not fast-forwards. The caller must exclude them.

        Args:
            url: the repository.
            objects: the object store that has the commit.
            sha: the commit; None deletes the branch.
            branch: the name of the branch.
            expected: the commit of the branch now; None if the branch does not exist yet.
        """
        ref = HEADS + branch
        lease = f"--force-with-lease={ref}:{expected or ''}"
        options = ("--quiet", "--no-verify", "--no-signed", "--recurse-submodules=no")
        async with self._private(objects) as place:
            await self._talk(place, "push", *options, lease, "--", url, f"{sha or ''}:{ref}")

    async def push_lfs_files(
        self,
        url: str,
        mirror: Path,
        sha: str,
        known: Mapping[str, str],
        repositories: Collection[str],
    ) -> None:
        """Upload the LFS files of a commit.

        Args:
            url: the repository.
            mirror: the bare repository with the commit, and with the files in `lfs/`.
            sha: the commit. Its `.lfsconfig` is used.
            known: the remote's branches: the sha by `refs/remotes/origin/<branch>`.
            repositories: the repositories the token is offered for, as `owner/name`.
        """
        async with self._with_lfs(mirror, sha, known) as place:
            await self._follow(
                place, repositories, "lfs", "push", "origin", "HEAD", more=_lfs(url, mirror)
            )

    async def is_ancestor(self, objects: Path, ancestor: str, sha: str) -> bool:
        """Return whether `sha` contains `ancestor`; False if `objects` lacks one of them."""
        # In a private repository, planted replacement refs and grafts have no effect.
        async with self._private(objects) as place:
            with contextlib.suppress(GitError):
                return await is_ancestor(self._git, place, ancestor, sha)
        return False

    def _private(
        self, objects: Path, known: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[GitLocation]:
        return scratch_repository(self._scratch, objects, known or {})

    @contextlib.asynccontextmanager
    async def _with_lfs(
        self, mirror: Path, sha: str, known: Mapping[str, str]
    ) -> AsyncIterator[GitLocation]:
        (mirror / "lfs").mkdir(exist_ok=True)
        async with self._private(mirror / "objects", known) as place:
            (place.git_dir / "HEAD").write_text(f"{sha}\n")
            reach = Reach((place.git_dir, mirror / "lfs"), (mirror / "objects",))
            yield replace(place, reach=reach)

    async def _talk(self, place: GitLocation, *arguments: str) -> None:
        """Run a command that connects only to the repository of a job."""
        await self._git.run(
            *arguments, at=place, settings=self._settings(), timeout=NETWORK_SECONDS
        )

    async def _ask(self, place: GitLocation, *arguments: str) -> str:
        return await self._git.run(
            *arguments, at=place, settings=self._settings(), timeout=_ASK_SECONDS
        )

    async def _follow(
        self,
        place: GitLocation,
        repositories: Collection[str],
        *arguments: str,
        more: Sequence[Setting],
    ) -> None:
        """Run a command that follows addresses in files of a repository."""
        reach = place.reach or Reach(())
        if self._credentials.token_file is not None:
            reach = reach.plus(Reach((), (self._credentials.token_file,)))
        await self._git.run_on_network(
            *arguments,
            at=replace(place, reach=reach),
            gateway=self.gateway,
            settings=[*self._settings(repositories), *more],
        )

    def _settings(self, repositories: Collection[str] | None = None) -> list[Setting]:
        return [*self._credentials.settings(repositories), *self._protocols, *_STALL]

    def _submodule_settings(self) -> list[Setting]:
        """Return settings to update all submodules. SSH addresses of the server become HTTPS."""
        server = self._credentials.server_url.rstrip("/")
        host = urlsplit(server).hostname or ""
        by_ssh = (f"git@{host}:", f"ssh://git@{host}/")
        return [
            # This includes submodules of submodules, without `submodule init` in each.
            ("submodule.active", "."),
            *((f"url.{server}/.insteadOf", address) for address in by_ssh),
        ]


def _lfs(url: str, mirror: Path) -> list[Setting]:
    return [("remote.origin.url", url), ("lfs.storage", str(mirror / "lfs"))]


def _gateway(server_url: str) -> Gateway:
    """Return a proxy to public addresses, and to the configured server at any address."""
    parts = urlsplit(server_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    policy = Policy(network=Reachable.INTERNET, exempt=frozenset({(host, port)}))
    forwards = {port: (host, port)} if host in _LOOPBACK else {}
    return Gateway(policy, ConnectionVariables({}), None, forwards)


def _fetch_options() -> tuple[str, ...]:
    return (
        "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
        "--recurse-submodules=no", "--",
    )  # fmt: skip
