"""One bare mirror per repository. All jobs of the repository borrow its objects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from domain.errors import InvalidRequest, JobFailure
from domain.failures import FailureCode
from workspace.git.credentials import GitCredentials
from workspace.git.errors import as_job_failures, is_damage
from workspace.git.locks import Locks
from workspace.git.refs import TRACKING, list_refs, list_refs_and_targets
from workspace.git.remote import Network
from workspace.git.runner import TREE_SECONDS, Git, GitError, GitLocation
from workspace.git.scratch_repository import scratch_repository
from workspace.git.text import encode
from workspace.mirrors import config_reset
from workspace.mirrors.repair import finish_replacement, is_being_replaced, replace_mirror

_log = logging.getLogger(__name__)

ORIGIN_HEAD = f"{TRACKING}HEAD"


@dataclass(frozen=True)
class Mirror:
    """The mirror of one repository.

    Args:
        owner: as the caller wrote it.
        name: as the caller wrote it.
        path: the bare repository.
        url: the remote.
        fetched: the remote's branches if `Mirrors.fetch` returned the mirror: the sha by
            `refs/remotes/origin/<branch>`.
    """

    owner: str
    name: str
    path: Path
    url: str
    fetched: Mapping[str, str] | None = None

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def place(self) -> GitLocation:
        """Where git works on the mirror."""
        return GitLocation(self.path)

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.path / "objects"


class Mirrors:
    """All mirrors of this host.

    Args:
        root: the parent directory.
        git: runs the commands.
        credentials: the server and its token.
    """

    def __init__(self, root: Path, git: Git, credentials: GitCredentials) -> None:
        self.root = root
        self.git = git
        self.credentials = credentials
        self.locks = Locks()
        self.scratch = root / ".scratch"
        self.damaged = root / ".damaged"
        self.network = Network(git, credentials, self.scratch)
        self.has_lfs = shutil.which("git-lfs", path=git.search_path) is not None
        self._host = urlsplit(credentials.server_url).netloc.replace(":", "_") or "local"

    def path(self, owner: str, name: str) -> Path:
        """Return the path of a mirror. As on GitHub, names are not case-sensitive."""
        for part in (owner, name):
            if part in {"", ".", ".."} or "/" in part or "\0" in part:
                raise InvalidRequest(f"{part[:100]!r} cannot be part of a repository's name.")
        return self.root / self._host / owner.lower() / f"{name.lower()}.git"

    def mirror(self, owner: str, name: str) -> Mirror:
        """Return the mirror of a repository, whether or not it has been fetched."""
        return Mirror(owner, name, self.path(owner, name), self._server_url(owner, name))

    def on_disk(self) -> list[Path]:
        """Return the paths of all mirrors that have been fetched."""
        return sorted(self.root.glob("[!.]*/*/*.git"))

    @contextlib.asynccontextmanager
    async def lock(self, path: Path) -> AsyncIterator[None]:
        """Hold the lock on the refs of a mirror, and on the set of jobs that borrow its objects."""
        async with self.locks.hold(path.with_suffix(".lock")):
            await finish_replacement(self.git, path)
            yield

    async def finish_replacement(self, mirror: Mirror) -> None:
        """Finish an interrupted replacement of a damaged mirror, if there is one. Idempotent.

        Raises:
            JobFailure: the disk refused.
        """
        if is_being_replaced(mirror.path):
            with as_job_failures(self.credentials, f"Repairing the mirror of {mirror.full_name}"):
                async with self.lock(mirror.path):
                    pass

    async def fetch(self, owner: str, name: str) -> Mirror:
        """Fetch a repository into its mirror, which is created if it is missing.

        A damaged mirror is moved aside and replaced. Kept work is carried over.

        Raises:
            JobFailure: the remote or the disk refused, or the repository is empty.
        """
        mirror = self.mirror(owner, name)
        with as_job_failures(self.credentials, f"Fetching {mirror.full_name}"):
            async with self.lock(mirror.path):
                if mirror.path.is_dir():
                    fetched = await self._refresh_or_remake(mirror)
                else:
                    fetched = await self._make(mirror)
        return replace(mirror, fetched=fetched)

    @contextlib.contextmanager
    def as_job_failures(self, mirror: Mirror, doing: str) -> Iterator[None]:
        """Raise errors of git and of a full disk as `JobFailure`.

        If git finds the mirror damaged, the next fetch replaces it.
        """
        with as_job_failures(self.credentials, doing):
            try:
                yield
            except GitError as error:
                if not is_damage(error):
                    raise
                with contextlib.suppress(FileNotFoundError):
                    _mark_of(mirror).touch()
                raise JobFailure(
                    FailureCode.GIT_FAILED,
                    f"{doing} failed: the mirror of {mirror.full_name} on this host is damaged. "
                    "The next job of this repository replaces it.",
                    transient=True,
                ) from error

    async def default_branch(self, mirror: Mirror) -> str:
        """Return the remote's default branch. If the remote does not answer, use the last known.

        Raises:
            JobFailure: the branch of the remote's HEAD does not exist.
        """
        try:
            branch = await self.network.default_branch(mirror.url)
        except GitError:
            branch = (await self._known_head(mirror)).removeprefix(TRACKING)
        if not branch:
            raise JobFailure(
                FailureCode.BASE_BRANCH_NOT_FOUND,
                f"{mirror.full_name} has no default branch on the remote. Set one there.",
            )
        return branch

    async def branches(self, mirror: Mirror) -> dict[str, str]:
        """Return the remote's branches as of the last fetch: the sha by branch name.

        If `fetch` returned `mirror`, they are as of that fetch.
        """
        refs = mirror.fetched
        if refs is None:
            refs = await list_refs(self.git, mirror.place, TRACKING)
        return {name.removeprefix(TRACKING): sha for name, sha in refs.items()}

    async def has_commit(self, mirror: Mirror, sha: str) -> bool:
        """Return whether the mirror has a commit."""
        if not mirror.path.is_dir():
            return False
        try:
            return await self.git.check("cat-file", "-e", f"{sha}^{{commit}}", at=mirror.place)
        except GitError:
            return False

    async def is_sound(self, mirror: Mirror, sha: str) -> bool:
        """Return whether the history of all branches and the files of `sha` are complete.

        Git reads every commit and tree, which takes minutes for a large repository.
        """
        try:
            async with scratch_repository(self.scratch, mirror.objects, {}) as place:
                heads = (sha, *(await list_refs(self.git, mirror.place, TRACKING)).values())
                await self.git.run(
                    "rev-list", "--objects", "--quiet", "--stdin",
                    at=place, stdin="\n".join(heads).encode(), timeout=TREE_SECONDS,
                )  # fmt: skip
                (place.git_dir / "info").mkdir()
                (place.git_dir / "info" / "attributes").write_text("* -export-ignore\n")
                await self.git.run(
                    "archive", "--format=tar", f"--output={os.devnull}", sha,
                    at=place, timeout=TREE_SECONDS,
                )  # fmt: skip
        except GitError:
            return False
        return True

    async def _make(self, mirror: Mirror) -> Mapping[str, str]:
        """Create the mirror in a temporary directory, then move the complete one into place."""
        temporary = Path(tempfile.mkdtemp(dir=_made(self.scratch), prefix="mirror-"))
        draft = Mirror(mirror.owner, mirror.name, temporary, mirror.url)
        try:
            await self.git.run("init", "--quiet", "--bare", "--template=", at=draft.place)
            fetched = await self._refresh(draft)
            if mirror.path.is_dir():
                aside = Path(tempfile.mkdtemp(dir=_made(self.damaged), prefix="mirror-"))
                await replace_mirror(self.git, mirror.path, temporary, aside)
            else:
                _move(temporary, mirror.path)
        finally:
            await asyncio.to_thread(shutil.rmtree, temporary, True)
        return fetched

    async def _refresh_or_remake(self, mirror: Mirror) -> Mapping[str, str]:
        try:
            if not _mark_of(mirror).exists():
                return await self._refresh(mirror)
        except GitError as error:
            if not is_damage(error):
                raise
            _log.warning("The mirror %s is damaged: %s", mirror.path, error)
        return await self._make(mirror)

    async def _refresh(self, mirror: Mirror) -> Mapping[str, str]:
        config_reset.reset_config(mirror.path, mirror.url)
        config_reset.remove_leftovers(mirror.path)
        known, targets = await list_refs_and_targets(self.git, mirror.place, TRACKING)
        latest = await self.network.fetch(mirror.url, mirror.objects, known)
        if not latest:
            raise JobFailure(FailureCode.REPOSITORY_EMPTY)
        await self._update_refs(mirror, known, latest)
        # Ask for the default branch only if the known one is gone.
        if targets.get(ORIGIN_HEAD) not in latest:
            await self._follow_head(mirror, latest)
        return latest

    async def _update_refs(
        self, mirror: Mirror, known: Mapping[str, str], latest: Mapping[str, str]
    ) -> None:
        gone = [f"delete {name}\n" for name in known if name not in latest]
        moved = [f"update {name} {sha}\n" for name, sha in latest.items() if known.get(name) != sha]
        # Deletions first: git cannot replace a branch `a` by `a/b` in one transaction.
        for lines in filter(None, (gone, moved)):
            data = encode("".join(lines))
            await self.git.run("update-ref", "--no-deref", "--stdin", at=mirror.place, stdin=data)

    async def _follow_head(self, mirror: Mirror, latest: Mapping[str, str]) -> None:
        """Point `origin/HEAD` at the default branch, and ask the remote for it if necessary."""
        head = await self._known_head(mirror)
        if head in latest:
            return
        branch = await self.network.default_branch(mirror.url)
        if branch is not None and TRACKING + branch in latest:
            await self.git.run("symbolic-ref", ORIGIN_HEAD, TRACKING + branch, at=mirror.place)
        elif head:
            await self.git.run("symbolic-ref", "--delete", ORIGIN_HEAD, at=mirror.place)

    async def _known_head(self, mirror: Mirror) -> str:
        arguments = ("symbolic-ref", "--quiet", ORIGIN_HEAD)
        return (await self.git.run(*arguments, at=mirror.place, accept=(0, 1))).strip()

    def _server_url(self, owner: str, name: str) -> str:
        return f"{self.credentials.server_url.rstrip('/')}/{owner}/{name}.git"


def _mark_of(mirror: Mirror) -> Path:
    """Return the file that marks a mirror as damaged."""
    return mirror.path / "damaged"


def _move(source: Path, target: Path) -> None:
    source.rename(target)


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
