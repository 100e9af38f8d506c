"""Keeps the undelivered work of a worktree in the mirror."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from workspace.author import ORCHESTRATOR
from workspace.git.errors import is_no_space
from workspace.git.refs import is_ancestor
from workspace.git.runner import GitError
from workspace.git.status import is_unchanged
from workspace.git.trees import apply_tree_diff, tree_of, tree_of_files
from workspace.inspection.forward_port import newer_branch_head, rebase_changes_onto
from workspace.inspection.head import head_and_branch, head_commit
from workspace.inspection.in_progress import autostashed_commits
from workspace.inspection.stray_branches import has_new_commits, stray_commits
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirror
from workspace.mirrors.object_transfer import ObjectTransfer
from workspace.salvage.patches import patch_between
from workspace.salvage.refs import SALVAGE, message, salvage_commit
from workspace.worktree.private_repository import (
    BrokenRepository,
    RepositoryError,
    repository_errors,
)
from workspace.worktree.worktree import Worktree, checked_job_id

_log = logging.getLogger(__name__)

_MAX_PARENTS = 10_000
"""The number of parents of a salvage commit. They are arguments of one command."""
MAX_PATCH_BYTES = 8 * 1024 * 1024
"""The size limit of a patch. It is stored in one database row, by one request."""


@dataclass(frozen=True)
class Salvaged:
    """The kept work of a job.

    Args:
        base_sha: the commit that the job started from.
        head_sha: the commit that keeps the work, in the mirror on this host.
        patch: the changes from `base_sha` to `head_sha`, for `git apply`; for `git apply --index`
            if submodules changed. It is text: if a file is not, git's binary form is used. It has
            the pointers of LFS files, without the files. None if it is over MAX_PATCH_BYTES.
    """

    base_sha: str
    head_sha: str
    patch: str | None


@dataclass(frozen=True)
class _Work:
    """The work in a worktree.

    Args:
        heads: the commits that reach the whole history. The files belong to the first.
        tree: the files.
    """

    heads: tuple[str, ...]
    tree: str


class Salvage:
    """Keeps work under `refs/orchestrator/salvage/<job id>` in the mirror.

    Args:
        worktrees: the worktrees and their mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git
        self._transfer = ObjectTransfer(worktrees.mirrors)

    async def keep(self, worktree: Worktree, *, include_pushed: bool = False) -> str | None:
        """Keep uncommitted changes and unpushed commits. Ignored files are not kept. Idempotent.

        The worktree and its index are not changed. If the work has changed since the last call, a
        new commit is added on top of the previous one. Claude must have ended.

        Args:
            worktree: the job's.
            include_pushed: whether to keep pushed commits too. Their branch may be deleted again,
                or may still need its pull request.

        Returns:
            The salvage commit; None if there is nothing to keep.

        Raises:
            JobFailure: git or the disk reported an error.
        """
        async with self._mirrors.locks.hold(worktree.lock_file):
            return await self.keep_locked(worktree, include_pushed=include_pushed)

    async def keep_locked(self, worktree: Worktree, *, include_pushed: bool) -> str | None:
        """Do the same as `keep`, for a caller that holds the worktree's lock.

        If the job's repository is broken, only the files are kept, and the repository is moved
        aside.
        """
        mirror = self._mirrors.mirror(worktree.owner, worktree.name)
        with self._mirrors.as_job_failures(mirror, "Keeping the work"):
            try:
                await self._worktrees.restore(worktree)
                return await self._keep(worktree, mirror, include_pushed=include_pushed)
            except (RepositoryError, BrokenRepository) as error:
                if not await self._is_due_to_the_job(error, mirror, worktree.base_sha):
                    raise
                _log.warning("Only the files of job %s are kept: %s", worktree.job_id, error)
            # If this fails too, the job's repository was not the reason, and it stays.
            async with self._worktrees.with_temporary_repository(worktree) as repaired:
                kept = await self._keep(repaired, mirror, include_pushed=include_pushed)
            await self._worktrees.replace_repository(worktree)
            return kept

    async def _keep(
        self, worktree: Worktree, mirror: Mirror, *, include_pushed: bool
    ) -> str | None:
        published = {*(await self._mirrors.branches(mirror)).values()}
        with repository_errors():
            work = await self._work_in(worktree, published, include_pushed=include_pushed)
        return None if work is None else await self._store(worktree, mirror, work)

    async def _is_due_to_the_job(
        self, error: RepositoryError | BrokenRepository, mirror: Mirror, base_sha: str
    ) -> bool:
        """Return whether the job's repository can be the cause of an error."""
        if isinstance(error, BrokenRepository):
            return True
        if is_no_space(error) or error.exit_code is None or error.exit_code < 0:
            return False
        return await self._mirrors.is_sound(mirror, base_sha)

    async def kept(self, owner: str, name: str, job_id: str) -> Salvaged | None:
        """Return the work of a job that this host keeps; None if there is none.

        Raises:
            JobFailure: the mirror is damaged.
        """
        checked_job_id(job_id)
        mirror = self._mirrors.mirror(owner, name)
        if not mirror.path.is_dir():
            return None
        with self._mirrors.as_job_failures(mirror, "Reading kept work"):
            kept = await salvage_commit(self._git, mirror.place, job_id)
            if kept is None:
                return None
            patch = await patch_between(
                self._git, mirror.objects, self._mirrors.scratch, kept.base_sha, kept.sha,
                MAX_PATCH_BYTES,
            )  # fmt: skip
        return Salvaged(kept.base_sha, kept.sha, patch)

    async def _work_in(
        self, worktree: Worktree, published: Collection[str], *, include_pushed: bool
    ) -> _Work | None:
        """Return the work that would be lost with the worktree; None if there is none."""
        head, branch = await head_and_branch(self._git, worktree)
        files = await self._changed_files(worktree, head)
        other_heads = await autostashed_commits(self._git, worktree)
        known = {*published, *filter(None, (head, branch))}
        other_heads += (await stray_commits(self._git, worktree, known)).values()
        if files is None:
            own = [head] if branch is None else [head, branch]
            delivered = () if include_pushed else published
            if not other_heads and not await has_new_commits(self._git, worktree, own, delivered):
                return None
            head = await head_commit(self._git, worktree)
            files = await tree_of(self._git, worktree.history, head)
        elif newer := await newer_branch_head(self._git, worktree):
            forward = await rebase_changes_onto(self._git, worktree, files, newer)
            if forward is not None:
                return _Work((newer, *other_heads), forward)
        if branch is None or await is_ancestor(self._git, worktree.history, branch, head):
            return _Work((head, *other_heads), files)
        return _Work((head, branch, *other_heads), files)

    async def _changed_files(self, worktree: Worktree, head: str) -> str | None:
        """Write the files as a tree, with untouched files as in `head`; None if nothing changed."""
        if not worktree.path.is_dir():
            return None
        if worktree.files_tree is None and await is_unchanged(self._git, worktree.place, head):
            return None
        clean = await tree_of(self._git, worktree.history, head)
        files = await self._tree_of_files(worktree, head, clean)
        return None if files == clean else files

    async def _tree_of_files(self, worktree: Worktree, head: str, clean: str) -> str:
        index = worktree.git_dir / "index"
        files = await tree_of_files(self._git, worktree.place, index, head)
        if worktree.files_tree is None:
            return files
        try:
            return await apply_tree_diff(
                self._git, worktree.place, clean, worktree.files_tree, files
            )
        except GitError as error:
            # A damaged mirror may have lost `files_tree`. Keep too many files rather than none.
            _log.warning("All files of the worktree %s are kept: %s", worktree.path, error)
            return files

    async def _store(self, worktree: Worktree, mirror: Mirror, work: _Work) -> str:
        parents = tuple(dict.fromkeys(work.heads))
        if len(parents) > _MAX_PARENTS:
            raise BrokenRepository(f"It has {len(parents)} separate branches, tags and stashes.")
        previous = await salvage_commit(self._git, mirror.place, worktree.job_id)
        if previous is not None:
            if previous.tree == work.tree and previous.parents[: len(parents)] == parents:
                return previous.sha
            parents = (*parents, previous.sha)
        arguments = [argument for parent in parents for argument in ("-p", parent)]
        with repository_errors():
            output = await self._git.run(
                "commit-tree", "--no-gpg-sign", *arguments, "-F", "-", work.tree,
                at=worktree.history, variables=ORCHESTRATOR.environment(),
                stdin=message(worktree.job_id, worktree.base_sha).encode(),
            )  # fmt: skip
        commit = output.strip()
        await self._transfer.copy_commit(worktree, commit)
        ref = SALVAGE + worktree.job_id
        async with self._mirrors.lock(mirror.path):
            await self._git.run("update-ref", "--no-deref", ref, commit, at=mirror.place)
        return commit
