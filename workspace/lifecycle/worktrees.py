"""One worktree for every job: made once, found again after a crash, with the edits in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox.files import UnsafeFile
from workspace.git import trees
from workspace.git.errors import explained
from workspace.git.remote import TRACKING, refs
from workspace.git.runner import TREE_SECONDS
from workspace.inspection.status import status_of
from workspace.inspection.submodule_changes import Submodules
from workspace.inspection.submodule_repository import modules_of
from workspace.inspection.submodule_rescue import RescuedSubmodules, rescue
from workspace.lifecycle import start_points
from workspace.lifecycle.restore import start_point_from_salvage
from workspace.lifecycle.start_points import StartPoint
from workspace.mirrors.mirrors import Mirror, Mirrors
from workspace.worktree import lfs_and_submodules, private_repository
from workspace.worktree.deletion import delete_tree, move_aside
from workspace.worktree.private_repository import BrokenRepository
from workspace.worktree.worktree import (
    REPOSITORY_SUFFIX,
    SubmoduleSnapshot,
    Worktree,
    checked_job_id,
    delete_record,
    read_record,
    write_record,
)

_log = logging.getLogger(__name__)
# Errors that a job can cause by the files it leaves; others are the host's.
_IN_THE_WAY = (
    UnsafeFile, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError,
    TimeoutError,
)  # fmt: skip


class Worktrees:
    """All worktrees of this machine, below one directory.

    Args:
        root: the directory.
        mirrors: the repositories they belong to.
    """

    def __init__(self, root: Path, mirrors: Mirrors) -> None:
        self.root = root
        self.mirrors = mirrors
        self.trash = root / ".trash"
        self.orphaned = root / ".orphaned"
        self.submodules = Submodules(mirrors)

    def path(self, owner: str, name: str, job_id: str) -> Path:
        """Return where a job's worktree is, whether or not it exists."""
        return self.root / owner.lower() / name.lower() / checked_job_id(job_id)

    def at(self, owner: str, name: str, job_id: str) -> Worktree:
        """Return a description of a job's worktree that nothing is known of but its place."""
        path = self.path(owner, name, job_id)
        return Worktree(owner, name, job_id, path, self.mirrors.path(owner, name), None, "")

    def recorded(self, owner: str, name: str, job_id: str) -> Worktree | None:
        """Return a job's worktree as its record has it, whatever became of its files."""
        blank = self.at(owner, name, job_id)
        record = read_record(blank.path)
        if record is None:
            return None
        return replace(
            blank,
            branch=record["branch"],
            base_sha=record["base_sha"],
            continued=record["continued"],
            notices=tuple(record["notices"]),
            files_tree=record.get("files_tree"),
            submodules=tuple(SubmoduleSnapshot(*row) for row in record.get("submodules", ())),
        )

    async def find(self, owner: str, name: str, job_id: str) -> Worktree | None:
        """Return a job's worktree if it is complete, else None."""
        await self.mirrors.settle(self.mirrors.mirror(owner, name))
        worktree = self.recorded(owner, name, job_id)
        if worktree is None or not worktree.exists:
            return None
        with _broken_repository():
            await asyncio.to_thread(private_repository.restore_pointers, worktree)
        return worktree

    async def restore(self, worktree: Worktree) -> None:
        """Restore the files of a worktree's repository that git obeys. Idempotent.

        Claude must have ended, and the worktree's lock is held. A deleted mirror is fetched again.
        A deleted repository is made again, at the base commit.

        Raises:
            BrokenRepository: the job left something that cannot be replaced.
            JobFailure: the mirror cannot be fetched.
        """
        mirror = self.mirrors.mirror(worktree.owner, worktree.name)
        if not mirror.path.is_dir():
            await self.mirrors.fetch(worktree.owner, worktree.name)
        if not worktree.git_dir.is_dir():
            await self._make_repository(mirror, worktree, worktree.base_sha)
        with _broken_repository():
            await asyncio.to_thread(
                private_repository.restore, worktree, mirror, lfs=self.mirrors.has_lfs
            )

    @contextlib.asynccontextmanager
    async def with_temporary_repository(self, worktree: Worktree) -> AsyncIterator[Worktree]:
        """Yield the worktree with a fresh repository at its base commit, deleted at the end."""
        mirror = self.mirrors.mirror(worktree.owner, worktree.name)
        with tempfile.TemporaryDirectory(dir=self.mirrors.scratch, prefix="lent-") as directory:
            lent = replace(worktree, lent=Path(directory, REPOSITORY_SUFFIX))
            await self._make_repository(mirror, lent, worktree.base_sha)
            yield lent

    async def replace_repository(self, worktree: Worktree) -> None:
        """Move a worktree's repository aside and make a fresh one at its base commit.

        Files and submodules stay as they are. The worktree's lock is held.
        """
        mirror = self.mirrors.mirror(worktree.owner, worktree.name)
        aside = move_aside(worktree.git_dir, self.orphaned)
        _log.warning("The repository of job %s is now %s", worktree.job_id, aside)
        await self._make_repository(mirror, worktree, worktree.base_sha)
        if aside is not None and (aside / "modules").is_dir():
            (aside / "modules").rename(modules_of(worktree))

    def mirror_in_use(self, mirror: Path) -> bool:
        """Return whether a worktree on the disk borrows the objects of a mirror."""
        owner, name = mirror.parent.name, mirror.stem
        return any((self.root / owner / name).glob(f"*{REPOSITORY_SUFFIX}"))

    async def create_for_branch(
        self,
        owner: str,
        name: str,
        job_id: str,
        branch: str,
        base: str | None,
        repositories: Collection[str] = (),
    ) -> Worktree:
        """Make a worktree on a branch of its own, or return the job's complete one as it is.

        A branch that the remote has is continued; any other starts at `base`, a branch of the
        remote or a full sha, or at the remote's default branch when that is None. The mirror must
        have been fetched.

        Args:
            owner: of the repository.
            name: of the repository.
            job_id: the job it is for.
            branch: the branch to work on.
            base: where a new one starts.
            repositories: further ones whose submodules and LFS files the token may fetch, as
                `owner/name`.

        Raises:
            JobFailure: the branch cannot be had, or git or the disk refused.
        """

        async def choose(mirror: Mirror) -> StartPoint:
            return await start_points.for_branch(self.mirrors, mirror, branch, base)

        return await self._create(self.at(owner, name, job_id), branch, choose, repositories)

    async def create_detached(
        self,
        owner: str,
        name: str,
        job_id: str,
        revision: str | None,
        repositories: Collection[str] = (),
    ) -> Worktree:
        """Make a worktree for reading only, or return the job's complete one as it is.

        Args:
            owner: of the repository, whose mirror must have been fetched.
            name: of the repository.
            job_id: the job it is for.
            revision: a branch of the remote, a full sha to come back to, or None for the remote's
                default branch.
            repositories: as for `create_for_branch`.

        Raises:
            JobFailure: there is no such revision, or git or the disk refused.
        """

        async def choose(mirror: Mirror) -> StartPoint:
            return await start_points.for_reading(self.mirrors, mirror, revision)

        return await self._create(self.at(owner, name, job_id), None, choose, repositories)

    async def create_from_salvage(
        self,
        owner: str,
        name: str,
        job_id: str,
        branch: str,
        source_job_id: str,
        base_sha: str,
        head_sha: str,
        patch: str | None,
        repositories: Collection[str] = (),
    ) -> Worktree:
        """Make a worktree of what another job left, or return the job's complete one as it is.

        What that job had not committed is staged; publishing commits it. The worktree's base is
        the commit that job began from.

        Args:
            owner: of the repository, whose mirror must have been fetched.
            name: of the repository.
            job_id: the job it is for.
            branch: a new branch.
            source_job_id: the job that left the work.
            base_sha: the commit that job began from.
            head_sha: the commit that keeps its work, as it was recorded.
            patch: its work, for machines that have not kept it; None when it was too long.
            repositories: as for `create_for_branch`.

        Raises:
            JobFailure: KEPT_WORK_GONE; BRANCH_CONFLICT when the remote has such a branch; or git
                or the disk refused.
        """

        async def choose(mirror: Mirror) -> StartPoint:
            return await start_point_from_salvage(
                self.mirrors, mirror, branch, source_job_id, base_sha, head_sha, patch
            )

        return await self._create(self.at(owner, name, job_id), branch, choose, repositories)

    async def changed_paths(self, worktree: Worktree) -> list[str]:
        """Return the files that differ from the worktree's base commit, new ones included.

        Ignored files do not count, nor do those that differed when the worktree was made and are
        as they were. A submodule counts if something was done in it. Names that are not UTF-8 have
        replacement characters.
        """
        with explained(self.mirrors.credentials, "Comparing the worktree"):
            async with self.mirrors.locks.hold(worktree.lock_file):
                await self.restore(worktree)
                names = await self._changed(worktree)
                names |= {*await self.submodules.paths_with_work(worktree)}
        return sorted(
            name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names
        )

    async def _changed(self, worktree: Worktree) -> set[str]:
        git, place = self.mirrors.git, worktree.place
        changed = await git.run(
            "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff",
            "--ignore-submodules=dirty", worktree.base_sha, "--",
            at=place, timeout=TREE_SECONDS,
        )  # fmt: skip
        new = await git.run(
            "ls-files", "-z", "--others", "--exclude-standard", at=place, timeout=TREE_SECONDS
        )
        names = {name for name in (changed + new).split("\0") if name}
        return names - await self._untouched(worktree) if names else names

    async def _untouched(self, worktree: Worktree) -> set[str]:
        """Return the files that differ from the base commit although nobody has touched them."""
        if worktree.files_tree is None:
            return set()
        git, place, base = self.mirrors.git, worktree.place, worktree.base_sha
        index = worktree.git_dir / "index"
        present = await trees.tree_of_files(git, place, index, base)
        made = worktree.files_tree
        differing = await trees.changed_names(git, place, base, made)
        return differing - await trees.changed_names(git, place, made, present)

    async def submodules_to_rescue(self, worktree: Worktree) -> RescuedSubmodules | None:
        """Return what `discard` has to move aside of a worktree's submodules; None for nothing."""
        with explained(self.mirrors.credentials, "Looking into the submodules"):
            paths = await self.submodules.paths_with_work(worktree)
        return self._spared(worktree, paths) if paths else None

    async def discard(self, worktree: Worktree, spared: RescuedSubmodules | None = None) -> None:
        """Take a worktree off the disk without keeping its work, while holding its lock.

        What is `spared` is moved aside.
        """
        if spared is not None:
            rescue(worktree, spared)
        # A worktree without a record has no work, so a later removal only deletes the rest.
        delete_record(worktree.path)
        leftovers = (
            move_aside(worktree.git_dir, self.trash),
            move_aside(worktree.path, self.trash),
        )
        for leftover in filter(None, leftovers):
            await asyncio.to_thread(delete_tree, leftover)

    def _move_remains_aside(self, worktree: Worktree) -> None:
        """Move aside the remains of a worktree that was complete, because they may have work."""
        if read_record(worktree.path) is None:
            return
        for directory in (worktree.git_dir, worktree.path):
            aside = move_aside(directory, self.orphaned)
            if aside is not None:
                _log.warning("Remains of the worktree of job %s are now %s", worktree.job_id, aside)

    def _spared(self, worktree: Worktree, paths: Sequence[str]) -> RescuedSubmodules:
        name = f"{worktree.job_id}-submodules"
        return RescuedSubmodules(tuple(paths), self.orphaned / name, self.orphaned / f"{name}.git")

    async def _create(
        self,
        blank: Worktree,
        branch: str | None,
        choose: Callable[[Mirror], Awaitable[StartPoint]],
        repositories: Collection[str],
    ) -> Worktree:
        found = await self.find(blank.owner, blank.name, blank.job_id)
        if found is not None:
            return found
        mirror = self.mirrors.mirror(blank.owner, blank.name)
        doing = f"Making the worktree of {mirror.full_name}"
        async with self.mirrors.locks.hold(blank.lock_file):
            found = await self.find(blank.owner, blank.name, blank.job_id)
            if found is not None:
                return found
            with self.mirrors.explained(mirror, doing):
                _require_mirror(mirror)
                self._move_remains_aside(blank)
                await self.discard(blank)
                offered = {*repositories, mirror.full_name}
                start = await choose(mirror)
                return await self._complete(mirror, blank, branch, start, offered)

    async def _complete(
        self,
        mirror: Mirror,
        blank: Worktree,
        branch: str | None,
        start: StartPoint,
        offered: Collection[str],
    ) -> Worktree:
        worktree = replace(blank, branch=branch, base_sha=start.base_sha, continued=start.continued)
        lfs = await lfs_and_submodules.require_lfs(self.mirrors, mirror.place, start.files_sha)
        await self._make_repository(mirror, worktree, start.files_sha, is_new=True)
        worktree.path.mkdir()
        await asyncio.to_thread(private_repository.restore_pointers, worktree)
        git = self.mirrors.git
        await git.run(
            "reset", "--quiet", "--hard", "--no-recurse-submodules", start.files_sha,
            at=worktree.place, timeout=TREE_SECONDS,
        )  # fmt: skip
        if lfs:
            await lfs_and_submodules.fetch_lfs_files(
                self.mirrors, worktree, start.files_sha, offered
            )
        notices = await lfs_and_submodules.fetch_submodules(self.mirrors, worktree, offered)
        if start.sha != start.files_sha:
            # Only now, because git-lfs fetches what the commit that is checked out names.
            await git.run("reset", "--quiet", "--soft", start.sha, at=worktree.place)
        worktree = replace(
            worktree,
            notices=(*start.notices, *notices),
            files_tree=await self._files_tree(worktree, start),
            submodules=await self.submodules.snapshots(worktree),
        )
        write_record(worktree)
        return worktree

    async def _files_tree(self, worktree: Worktree, start: StartPoint) -> str | None:
        """Return what the files of the commit that is checked out come to as a tree, if not its.

        The work that `start` takes up has been checked out too, and is to count as such.
        """
        git, place = self.mirrors.git, worktree.place
        if (await status_of(git, place)).is_clean:
            return None
        clean = await trees.tree_of(git, place, start.files_sha)
        index = worktree.git_dir / "index"
        files = await trees.tree_of_files(git, place, index, start.files_sha)
        if files == clean:
            return None
        checked_out = await trees.tree_of(git, place, start.sha)
        return await trees.apply_tree_diff(git, place, files, clean, checked_out)

    async def _make_repository(
        self, mirror: Mirror, worktree: Worktree, sha: str, *, is_new: bool = False
    ) -> None:
        # The lock keeps the mirror from being packed before it is seen to be used.
        async with self.mirrors.lock(mirror.path):
            if is_new and worktree.branch is not None:
                self._require_free(worktree, worktree.branch)
            tracking = await refs(self.mirrors.git, mirror.place, TRACKING)
            await asyncio.to_thread(
                private_repository.make, worktree, mirror, sha, tracking, lfs=self.mirrors.has_lfs
            )

    def _require_free(self, worktree: Worktree, branch: str) -> None:
        """Refuse a branch that another job on this host uses, or that clashes with one in use.

        Raises:
            JobFailure: BRANCH_IN_USE or BRANCH_CONFLICT.
        """
        for job_id, used in self._branches_beside(worktree):
            if used == branch:
                raise JobFailure(
                    FailureCode.BRANCH_IN_USE,
                    f"The branch {branch} is in use by job {job_id}. Wait until it is free, or use "
                    "another branch name.",
                    transient=True,
                )
            start_points.refuse_clash(branch, [used])

    def _branches_beside(self, worktree: Worktree) -> Iterator[tuple[str, str]]:
        """List the other jobs of the repository that have files, with the branch of each."""
        for git_dir in worktree.path.parent.glob(f"*{REPOSITORY_SUFFIX}"):
            path = git_dir.with_suffix("")
            if path == worktree.path or not path.is_dir():
                continue
            record = read_record(path)
            branch = record["branch"] if record else private_repository.branch_in(git_dir)
            if branch is not None:
                yield path.name, branch


@contextlib.contextmanager
def _broken_repository() -> Iterator[None]:
    """Raise `BrokenRepository` for errors that a job can cause."""
    try:
        yield
    except _IN_THE_WAY as error:
        raise BrokenRepository(str(error)) from error


def _require_mirror(mirror: Mirror) -> None:
    if not mirror.path.is_dir():
        raise JobFailure(
            FailureCode.GIT_FAILED,
            f"{mirror.full_name} has not been fetched on this machine. Fetch it first.",
            transient=True,
        )
