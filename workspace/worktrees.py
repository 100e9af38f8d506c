"""One worktree for every job: made once, found again after a crash, with the edits in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace import contents, file_trees, known_content, start_points
from workspace.command import TREE_SECONDS
from workspace.kept_work import for_kept_work
from workspace.mirrors import Mirror, Mirrors, worktree_of
from workspace.pointers import restore_pointers
from workspace.refusals import explained
from workspace.sparing import Spared, spare
from workspace.start_points import StartPoint
from workspace.stash import close_stash
from workspace.submodules import Submodules
from workspace.trees import delete_tree, move_aside
from workspace.worktree import (
    MadeSubmodule,
    Worktree,
    checked_job_id,
    delete_record,
    read_record,
    write_record,
)

_log = logging.getLogger(__name__)


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
            submodules=tuple(MadeSubmodule(*row) for row in record.get("submodules", ())),
        )

    async def find(self, owner: str, name: str, job_id: str) -> Worktree | None:
        """Return a job's worktree if it is complete, else None."""
        await self.mirrors.settle(self.mirrors.mirror(owner, name))
        worktree = self.recorded(owner, name, job_id)
        if worktree is None or not worktree.exists:
            return None
        restore_pointers(worktree)
        return worktree

    async def create_for_branch(
        self, owner: str, name: str, job_id: str, branch: str, base: str | None
    ) -> Worktree:
        """Make a worktree on a branch of its own, or return the job's complete one as it is.

        A branch that the remote has is continued; any other starts at `base`, a branch of the
        remote or a full sha, or at the remote's default branch when that is None. The mirror must
        have been fetched.

        Raises:
            JobFailure: the branch cannot be had, or git or the disk refused.
        """

        async def choose(mirror: Mirror) -> StartPoint:
            return await start_points.for_branch(self.mirrors, mirror, branch, base)

        return await self._create(self.at(owner, name, job_id), branch, choose)

    async def create_detached(
        self, owner: str, name: str, job_id: str, revision: str | None
    ) -> Worktree:
        """Make a worktree for reading only, or return the job's complete one as it is.

        Args:
            owner: of the repository, whose mirror must have been fetched.
            name: of the repository.
            job_id: the job it is for.
            revision: a branch of the remote, a full sha to come back to, or None for the remote's
                default branch.

        Raises:
            JobFailure: there is no such revision, or git or the disk refused.
        """

        async def choose(mirror: Mirror) -> StartPoint:
            return await start_points.for_reading(self.mirrors, mirror, revision)

        return await self._create(self.at(owner, name, job_id), None, choose)

    async def create_from_kept(
        self,
        owner: str,
        name: str,
        job_id: str,
        branch: str,
        kept_job_id: str,
        base_sha: str,
        head_sha: str,
        patch: str | None,
    ) -> Worktree:
        """Make a worktree of what another job left, or return the job's complete one as it is.

        What that job had not committed is staged; publishing commits it. The worktree's base is
        the commit that job began from.

        Args:
            owner: of the repository, whose mirror must have been fetched.
            name: of the repository.
            job_id: the job it is for.
            branch: a new branch.
            kept_job_id: the job that left the work.
            base_sha: the commit that job began from.
            head_sha: the commit that keeps its work, as it was recorded.
            patch: its work, for machines that have not kept it; None when it was too long.

        Raises:
            JobFailure: KEPT_WORK_GONE; BRANCH_CONFLICT when the remote has such a branch; or git
                or the disk refused.
        """

        async def choose(mirror: Mirror) -> StartPoint:
            return await for_kept_work(
                self.mirrors, mirror, branch, kept_job_id, base_sha, head_sha, patch
            )

        return await self._create(self.at(owner, name, job_id), branch, choose)

    async def changed_paths(self, worktree: Worktree) -> list[str]:
        """Return the files that differ from the worktree's base commit, new ones included.

        Ignored files do not count, nor do those that differed when the worktree was made and are
        as they were. A submodule counts if something was done in it. Names that are not UTF-8 have
        replacement characters.
        """
        git, place = self.mirrors.git, worktree.place
        self.mirrors.restore(self.mirrors.mirror(worktree.owner, worktree.name))
        with explained(self.mirrors.credentials, "Comparing the worktree"):
            changed = await git.run(
                "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff",
                "--ignore-submodules=dirty", worktree.base_sha, "--",
                at=place, timeout=TREE_SECONDS,
            )  # fmt: skip
            new = await git.run(
                "ls-files", "-z", "--others", "--exclude-standard", at=place, timeout=TREE_SECONDS
            )
            names = {name for name in (changed + new).split("\0") if name}
            if names:
                names -= await self._untouched(worktree)
            names |= {*await self.submodules.with_work(worktree)}
        return sorted(
            name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names
        )

    async def is_clean(self, worktree: Worktree) -> bool:
        """Tell whether the worktree still holds exactly its base commit, ignored files aside."""
        return not await self.changed_paths(worktree)

    async def _untouched(self, worktree: Worktree) -> set[str]:
        """Return the files that differ from the base commit although nobody has touched them."""
        if worktree.files_tree is None:
            return set()
        git, place, base = self.mirrors.git, worktree.place, worktree.base_sha
        index = worktree.git_dir / "index"
        present = await file_trees.tree_of_files(git, place, index, base)
        made = worktree.files_tree
        differing = await file_trees.changed_names(git, place, base, made)
        return differing - await file_trees.changed_names(git, place, made, present)

    async def spared(self, worktree: Worktree) -> Spared | None:
        """Return what `discard` has to move aside of a worktree's submodules; None for nothing."""
        with explained(self.mirrors.credentials, "Looking into the submodules"):
            paths = await self.submodules.with_work(worktree)
        return self._spared(worktree, paths) if paths else None

    async def discard(self, worktree: Worktree, spared: Spared | None = None) -> None:
        """Take a worktree off the disk without keeping its work, while holding its lock.

        It is moved aside first, so that a half-deleted one is never taken for a worktree. Files in
        which somebody has worked, but which git no longer knows, are not deleted, nor is what is
        `spared`.
        """
        mirror = self.mirrors.mirror(worktree.owner, worktree.name)
        async with self.mirrors.lock(mirror.path):
            self._spare_orphan(worktree)
            if spared is not None:
                spare(worktree, spared)
            # `git worktree remove` refuses one with submodules, and one that was being made.
            leftovers = (
                move_aside(worktree.path, self.trash),
                move_aside(worktree.git_dir, self.mirrors.scratch),
            )
            delete_record(worktree.path)
            if worktree.branch is not None and mirror.path.is_dir():
                await self._delete_local_branch(mirror, worktree.branch)
        for leftover in filter(None, leftovers):
            await asyncio.to_thread(delete_tree, leftover)

    def _spare_orphan(self, worktree: Worktree) -> None:
        if read_record(worktree.path) is None or worktree.exists:
            return
        spare(worktree, self._spared(worktree, ()))
        if (worktree.git_dir / "HEAD").is_file():
            return
        spared = move_aside(worktree.path, self.orphaned)
        if spared is not None:
            _log.warning("Git no longer knows the files that are now in %s", spared)

    def _spared(self, worktree: Worktree, paths: Sequence[str]) -> Spared:
        name = f"{worktree.job_id}-submodules"
        return Spared(tuple(paths), self.orphaned / name, self.mirrors.orphaned / name)

    async def _create(
        self,
        blank: Worktree,
        branch: str | None,
        choose: Callable[[Mirror], Awaitable[StartPoint]],
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
                await self.discard(blank)
                return await self._complete(mirror, blank, branch, await choose(mirror))

    async def _complete(
        self, mirror: Mirror, blank: Worktree, branch: str | None, start: StartPoint
    ) -> Worktree:
        worktree = replace(blank, branch=branch, base_sha=start.base_sha, continued=start.continued)
        lfs = await contents.require_lfs(self.mirrors, mirror.place, start.files_sha)
        async with self.mirrors.lock(mirror.path):
            await self._add(mirror, worktree, start.files_sha)
        git = self.mirrors.git
        await git.run(
            "reset", "--quiet", "--hard", "--no-recurse-submodules", start.files_sha,
            at=worktree.place, timeout=TREE_SECONDS,
        )  # fmt: skip
        if lfs:
            await contents.fetch_lfs_files(self.mirrors, worktree)
        notices = await contents.fetch_submodules(self.mirrors, worktree)
        if start.sha != start.files_sha:
            # Only now, because git-lfs fetches what the commit that is checked out names.
            await git.run("reset", "--quiet", "--soft", start.sha, at=worktree.place)
        worktree = replace(
            worktree,
            notices=(*start.notices, *notices),
            files_tree=await self._files_tree(worktree, start),
            submodules=await self.submodules.as_made(worktree),
        )
        write_record(worktree)
        return worktree

    async def _files_tree(self, worktree: Worktree, start: StartPoint) -> str | None:
        """Return what the files of the commit that is checked out come to as a tree, if not its.

        The work that `start` takes up has been checked out too, and is to count as such.
        """
        git, place = self.mirrors.git, worktree.place
        clean = await file_trees.tree_of(git, place, start.files_sha)
        index = worktree.git_dir / "index"
        files = await file_trees.tree_of_files(git, place, index, start.files_sha)
        if files == clean:
            return None
        checked_out = await file_trees.tree_of(git, place, start.sha)
        return await file_trees.replayed(git, place, files, clean, checked_out)

    async def _add(self, mirror: Mirror, worktree: Worktree, sha: str) -> None:
        """Register the worktree, without its files: those take long and need no lock."""
        git = self.mirrors.git
        self.mirrors.restore(mirror)
        known_content.remove_leftovers(mirror.path)
        self._forget_lost_worktrees(mirror)
        if worktree.branch is None:
            kind = ["--detach"]
        else:
            await start_points.make_room(git, mirror, worktree.branch, worktree.job_id)
            await close_stash(git, mirror, worktree.job_id)
            kind = ["--no-track", "-B", worktree.branch]
        target = (str(worktree.path), sha)
        await git.run(
            "worktree", "add", "--quiet", "--no-checkout", *kind, "--", *target, at=mirror.place
        )

    def _forget_lost_worktrees(self, mirror: Mirror) -> None:
        """Do what `git worktree prune` does, for directories that are gone.

        The command also takes a worktree for lost when only the `.git` file in it is missing.
        """
        for pointer in mirror.path.glob("worktrees/*/gitdir"):
            if not worktree_of(pointer).is_dir():
                move_aside(pointer.parent, self.mirrors.scratch)

    async def _delete_local_branch(self, mirror: Mirror, branch: str) -> None:
        used = await start_points.checked_out(self.mirrors.git, mirror)
        if branch not in used:
            name = f"refs/heads/{branch}"
            await self.mirrors.git.run("update-ref", "--no-deref", "-d", name, at=mirror.place)


def _require_mirror(mirror: Mirror) -> None:
    if not mirror.path.is_dir():
        raise JobFailure(
            FailureCode.GIT_FAILED,
            f"{mirror.full_name} has not been fetched on this machine. Fetch it first.",
            transient=True,
        )
