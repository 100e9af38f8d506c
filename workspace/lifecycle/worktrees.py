"""Creates the worktree of each job, and finds it again after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox.files import UnsafeFile
from workspace.git import trees
from workspace.git.errors import as_job_failures
from workspace.git.refs import TRACKING, list_refs
from workspace.git.runner import TREE_SECONDS
from workspace.git.status import status_of
from workspace.git.text import printable
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
# Errors that files of a job can cause. All other errors are problems of the host.
_JOB_ERRORS = (
    UnsafeFile, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError,
    TimeoutError,
)  # fmt: skip


class Worktrees:
    """All worktrees of this host, below one directory.

    Args:
        root: the directory.
        mirrors: their repositories.
    """

    def __init__(self, root: Path, mirrors: Mirrors) -> None:
        self.root = root
        self.mirrors = mirrors
        self.trash = root / ".trash"
        self.orphaned = root / ".orphaned"
        self.submodules = Submodules(mirrors)

    def path(self, owner: str, name: str, job_id: str) -> Path:
        """Return the path of a job's worktree, whether or not it exists."""
        return self.root / owner.lower() / name.lower() / checked_job_id(job_id)

    def at(self, owner: str, name: str, job_id: str) -> Worktree:
        """Return a placeholder `Worktree` with only its paths set."""
        path = self.path(owner, name, job_id)
        return Worktree(owner, name, job_id, path, self.mirrors.path(owner, name), None, "")

    def recorded(self, owner: str, name: str, job_id: str) -> Worktree | None:
        """Return a job's worktree from its record, even if its files are gone."""
        placeholder = self.at(owner, name, job_id)
        record = read_record(placeholder.path)
        if record is None:
            return None
        return replace(
            placeholder,
            branch=record["branch"],
            base_sha=record["base_sha"],
            continued=record["continued"],
            notices=tuple(record["notices"]),
            files_tree=record.get("files_tree"),
            submodules=tuple(SubmoduleSnapshot(*row) for row in record.get("submodules", ())),
        )

    async def find(self, owner: str, name: str, job_id: str) -> Worktree | None:
        """Return a job's worktree if it is complete and on disk."""
        await self.mirrors.finish_replacement(self.mirrors.mirror(owner, name))
        worktree = self.recorded(owner, name, job_id)
        if worktree is None or not worktree.exists:
            return None
        with _broken_repository():
            await asyncio.to_thread(private_repository.restore_pointers, worktree)
        return worktree

    async def restore(self, worktree: Worktree) -> None:
        """Restore the files that git obeys in a worktree's repository. Idempotent.

        Claude must have ended, and the caller holds the worktree's lock. A deleted mirror is
        fetched again. A deleted repository is created again, at the base commit.

        Raises:
            BrokenRepository: the job left a file that cannot be replaced.
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
        """Yield the worktree with a new repository at its base commit, and delete it at the end."""
        mirror = self.mirrors.mirror(worktree.owner, worktree.name)
        with tempfile.TemporaryDirectory(
            dir=self.mirrors.scratch, prefix="repository-"
        ) as directory:
            repaired = replace(worktree, temporary_git_dir=Path(directory, REPOSITORY_SUFFIX))
            await self._make_repository(mirror, repaired, worktree.base_sha)
            yield repaired

    async def replace_repository(self, worktree: Worktree) -> None:
        """Move a worktree's repository aside, and create a new one at its base commit.

        Files and submodules stay unchanged. The caller holds the worktree's lock.
        """
        mirror = self.mirrors.mirror(worktree.owner, worktree.name)
        aside = move_aside(worktree.git_dir, self.orphaned)
        _log.warning("The repository of job %s is now %s", worktree.job_id, aside)
        await self._make_repository(mirror, worktree, worktree.base_sha)
        if aside is not None and (aside / "modules").is_dir():
            (aside / "modules").rename(modules_of(worktree))

    def mirror_in_use(self, mirror: Path) -> bool:
        """Return whether a worktree on disk borrows the objects of a mirror."""
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
        mirror: Mirror | None = None,
    ) -> Worktree:
        """Create a worktree on a branch. Idempotent: a complete worktree is returned unchanged.

        A branch of the remote is continued. A new branch starts at `base`.

        Args:
            owner: of the repository. Its mirror must have been fetched.
            name: of the repository.
            job_id: the job.
            branch: the branch to work on.
            base: a branch of the remote, a full sha, or None for the remote's default branch.
            repositories: other repositories whose submodules and LFS files may be fetched with the
                token, as `owner/name`.
            mirror: the result of the fetch, if the caller has it.

        Raises:
            JobFailure: the branch is not possible, or git or the disk reported an error.
        """

        async def choose_start(mirror: Mirror) -> StartPoint:
            return await start_points.for_branch(self.mirrors, mirror, branch, base)

        return await self._create(
            self.at(owner, name, job_id), branch, choose_start, repositories, mirror
        )

    async def create_detached(
        self,
        owner: str,
        name: str,
        job_id: str,
        revision: str | None,
        repositories: Collection[str] = (),
        mirror: Mirror | None = None,
    ) -> Worktree:
        """Create a read-only worktree. Idempotent: a complete worktree is returned unchanged.

        Args:
            owner: of the repository. Its mirror must have been fetched.
            name: of the repository.
            job_id: the job.
            revision: a branch of the remote, a full sha, or None for the remote's default branch.
            repositories: as for `create_for_branch`.
            mirror: as for `create_for_branch`.

        Raises:
            JobFailure: the revision does not exist, or git or the disk reported an error.
        """

        async def choose_start(mirror: Mirror) -> StartPoint:
            return await start_points.for_revision(self.mirrors, mirror, revision)

        return await self._create(
            self.at(owner, name, job_id), None, choose_start, repositories, mirror
        )

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
        mirror: Mirror | None = None,
    ) -> Worktree:
        """Create a worktree with the kept work of another job.

        Idempotent: a complete worktree is returned unchanged. Changes that the other job had not
        committed are staged, and publishing commits them. The base is the other job's base.

        Args:
            owner: of the repository. Its mirror must have been fetched.
            name: of the repository.
            job_id: the job.
            branch: a new branch.
            source_job_id: the job that left the work.
            base_sha: the commit that the other job started from.
            head_sha: the recorded commit that keeps the work.
            patch: the work, for hosts that do not have it; None if it was too long.
            repositories: as for `create_for_branch`.
            mirror: as for `create_for_branch`.

        Raises:
            JobFailure: KEPT_WORK_GONE; BRANCH_CONFLICT if the remote already has the branch; or
                git or the disk reported an error.
        """

        async def choose_start(mirror: Mirror) -> StartPoint:
            return await start_point_from_salvage(
                self.mirrors, mirror, branch, source_job_id, base_sha, head_sha, patch
            )

        return await self._create(
            self.at(owner, name, job_id), branch, choose_start, repositories, mirror
        )

    async def changed_paths(self, worktree: Worktree) -> list[str]:
        """Return the paths that differ from the base commit, including new files.

        Ignored files do not count. Files that differed right after the checkout count only if they
        have changed since. A submodule counts if it contains work. Bytes of names that are not
        UTF-8 are replaced.
        """
        with as_job_failures(self.mirrors.credentials, "Comparing the worktree"):
            async with self.mirrors.locks.hold(worktree.lock_file):
                await self.restore(worktree)
                paths = await self._changed(worktree)
                paths |= {*await self.submodules.paths_with_work(worktree)}
        return sorted(map(printable, paths))

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
        paths = {path for path in (changed + new).split("\0") if path}
        return paths - await self._untouched(worktree) if paths else paths

    async def _untouched(self, worktree: Worktree) -> set[str]:
        """Return the paths that have differed from the base commit since the checkout."""
        if worktree.files_tree is None:
            return set()
        git, place, base = self.mirrors.git, worktree.place, worktree.base_sha
        index = worktree.git_dir / "index"
        present = await trees.tree_of_files(git, place, index, base)
        initial = worktree.files_tree
        initially_different = await trees.changed_names(git, place, base, initial)
        return initially_different - await trees.changed_names(git, place, initial, present)

    async def submodules_to_rescue(self, worktree: Worktree) -> RescuedSubmodules | None:
        """Return the submodules that `discard` has to move aside; None if none contains work."""
        with as_job_failures(self.mirrors.credentials, "Inspecting the submodules"):
            paths = await self.submodules.paths_with_work(worktree)
        if not paths:
            return None
        name = f"{worktree.job_id}-submodules"
        return RescuedSubmodules(tuple(paths), self.orphaned / name, self.orphaned / f"{name}.git")

    async def discard(self, worktree: Worktree, rescued: RescuedSubmodules | None = None) -> None:
        """Delete a worktree without keeping its work. The caller holds its lock.

        Args:
            worktree: the worktree.
            rescued: submodules to move aside first, from `submodules_to_rescue`.
        """
        if rescued is not None:
            rescue(worktree, rescued)
        # If this is killed later, the next removal sees no record and deletes the rest.
        delete_record(worktree.path)
        leftovers = (
            move_aside(worktree.git_dir, self.trash),
            move_aside(worktree.path, self.trash),
        )
        for leftover in filter(None, leftovers):
            await asyncio.to_thread(delete_tree, leftover)

    def _move_remains_aside(self, worktree: Worktree) -> None:
        """Move aside the remains of a worktree that was complete, as they may contain work."""
        if read_record(worktree.path) is None:
            return
        for directory in (worktree.git_dir, worktree.path):
            aside = move_aside(directory, self.orphaned)
            if aside is not None:
                _log.warning("Remains of the worktree of job %s are now %s", worktree.job_id, aside)

    async def _create(
        self,
        placeholder: Worktree,
        branch: str | None,
        choose_start: Callable[[Mirror], Awaitable[StartPoint]],
        repositories: Collection[str],
        mirror: Mirror | None,
    ) -> Worktree:
        owner, name, job_id = placeholder.owner, placeholder.name, placeholder.job_id
        existing = await self.find(owner, name, job_id)
        if existing is not None:
            return existing
        mirror = mirror or self.mirrors.mirror(owner, name)
        step = f"Creating the worktree of {mirror.full_name}"
        async with self.mirrors.locks.hold(placeholder.lock_file):
            existing = await self.find(owner, name, job_id)
            if existing is not None:
                return existing
            with self.mirrors.as_job_failures(mirror, step):
                _require_mirror(mirror)
                self._move_remains_aside(placeholder)
                await self.discard(placeholder)
                allowed = {*repositories, mirror.full_name}
                start = await choose_start(mirror)
                return await self._check_out(mirror, placeholder, branch, start, allowed)

    async def _check_out(
        self,
        mirror: Mirror,
        placeholder: Worktree,
        branch: str | None,
        start: StartPoint,
        repositories: Collection[str],
    ) -> Worktree:
        worktree = replace(
            placeholder, branch=branch, base_sha=start.base_sha, continued=start.continued
        )
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
                self.mirrors, worktree, start.files_sha, repositories
            )
        notices = await lfs_and_submodules.fetch_submodules(self.mirrors, worktree, repositories)
        if start.sha != start.files_sha:
            # Only after git-lfs, which fetches the files of the commit that is checked out.
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
        """Return `Worktree.files_tree` for a fresh checkout.

        The files of `start.files_sha` are on disk. Its changes to `start.sha` are work, so they are
        taken out of the result.
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
        # Without the lock, the mirror could be packed before the new repository counts as a user.
        async with self.mirrors.lock(mirror.path):
            if is_new and worktree.branch is not None:
                self._require_free_branch(worktree, worktree.branch)
            tracking = await list_refs(self.mirrors.git, mirror.place, TRACKING)
            await asyncio.to_thread(
                private_repository.make, worktree, mirror, sha, tracking, lfs=self.mirrors.has_lfs
            )

    def _require_free_branch(self, worktree: Worktree, branch: str) -> None:
        """Refuse a branch that another job on this host uses or excludes.

        Raises:
            JobFailure: BRANCH_IN_USE or BRANCH_CONFLICT.
        """
        for job_id, used in self._branches_in_use(worktree):
            if used == branch:
                raise JobFailure(
                    FailureCode.BRANCH_IN_USE,
                    f"The branch {branch} is in use by job {job_id}. Wait until it is free, or use "
                    "another branch name.",
                    transient=True,
                )
            start_points.refuse_clash(branch, [used])

    def _branches_in_use(self, worktree: Worktree) -> Iterator[tuple[str, str]]:
        """Yield the other jobs that have a worktree of the repository, each with its branch."""
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
    """Raise `BrokenRepository` for errors that the files of a job cause."""
    try:
        yield
    except _JOB_ERRORS as error:
        raise BrokenRepository(str(error)) from error


def _require_mirror(mirror: Mirror) -> None:
    if not mirror.path.is_dir():
        raise JobFailure(
            FailureCode.GIT_FAILED,
            f"{mirror.full_name} has not been fetched on this host. Fetch it first.",
            transient=True,
        )
