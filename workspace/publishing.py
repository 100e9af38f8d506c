"""Commit the files of a worktree and push them to the remote. Every step is idempotent."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.author import Identity
from workspace.git.errors import as_job_failures
from workspace.git.gitlinks import gitlinks
from workspace.git.refs import HEADS, TRACKING, is_ancestor, list_refs
from workspace.git.runner import TREE_SECONDS, GitError
from workspace.git.staging import stage
from workspace.git.status import status_of
from workspace.git.trees import apply_tree_diff, tree_of, write_tree
from workspace.inspection.forward_port import newer_branch_head, rebase_changes_onto
from workspace.inspection.head import commit_of, head_commit
from workspace.inspection.in_progress import refuse_unfinished
from workspace.inspection.stray_branches import list_lines, stray_commits
from workspace.inspection.submodule_changes import Submodules
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirror
from workspace.mirrors.object_transfer import ObjectTransfer
from workspace.worktree import lfs_and_submodules
from workspace.worktree.worktree import Worktree

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """The commit of a worktree to publish.

    Args:
        sha: the commit to push.
        commits_ahead: the number of its commits that the base does not have.
        files_changed: the number of files that differ from the base.
    """

    sha: str
    commits_ahead: int
    files_changed: int


class Publishing:
    """Commits, pushes, and queries the remote.

    Args:
        worktrees: the worktrees and their mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git
        self._submodules = Submodules(worktrees.mirrors)
        self._transfer = ObjectTransfer(worktrees.mirrors)

    async def commit_all(self, worktree: Worktree, message: str, identity: Identity) -> None:
        """Commit all changes except ignored files. Do nothing if there are none.

        Some files differ from their commit as soon as they are checked out. They are committed
        only if they changed since. Claude must have ended. No hook runs and nothing is signed.

        Raises:
            JobFailure: git or the disk refused, a merge or rebase is unfinished, or a submodule
                has changes or commits that its own repository does not have.
        """
        if not worktree.exists:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                "The job's worktree is gone from this host. Retry the job.",
            )
        with as_job_failures(self._mirrors.credentials, "Committing the work"):
            async with self._mirrors.locks.hold(worktree.lock_file):
                await self._worktrees.restore(worktree)
                status = await status_of(self._git, worktree.place)
                links = await gitlinks(self._git, worktree.history)
                refuse_unfinished(worktree, status.unmerged)
                await self._submodules.refuse_work(worktree, links)
                if status.is_clean and not links and not self._has_merge(worktree):
                    return
                await stage(self._git, worktree.place, status.nested, links)
                await self._unstage_untouched(worktree)
                # On a branch without a commit, this raises: a first commit would have no base.
                if status.head is None and not await self._has_staged(worktree):
                    return
                newer = await newer_branch_head(self._git, worktree)
                if newer is None:
                    await self._commit(worktree, message, identity)
                else:
                    await self._commit_onto(worktree, newer, message, identity)

    async def head(self, worktree: Worktree) -> Head:
        """Copy the commit to publish into the mirror, and describe it. Idempotent.

        It is the commit that is checked out, or the job's branch if that is ahead of it. Commits
        of Claude are included.
        """
        mirror = self._mirrors.mirror(worktree.owner, worktree.name)
        with as_job_failures(self._mirrors.credentials, "Reading the work"):
            sha = await head_commit(self._git, worktree)
            await self._transfer.copy_commit(worktree, sha)
            if sha == worktree.base_sha:
                return Head(sha, commits_ahead=0, files_changed=0)
            span = f"{worktree.base_sha}..{sha}"
            ahead = await self._git.run("rev-list", "--count", span, "--", at=mirror.place)
            changed = await self._git.run(
                "diff", "--name-only", "-z", "--no-ext-diff", worktree.base_sha, sha, "--",
                at=mirror.place, timeout=TREE_SECONDS,
            )  # fmt: skip
        return Head(sha, int(ahead), changed.count("\0"))

    async def left_out(self, worktree: Worktree, sha: str) -> dict[str, str]:
        """Return the commits that Claude left outside `sha`, by branch, tag or stash entry."""
        with as_job_failures(self._mirrors.credentials, "Reading the work"):
            refs = await list_lines(self._git, worktree)
            left = await stray_commits(self._git, worktree, {sha}, refs)
            if left:
                mirror = self._mirrors.mirror(worktree.owner, worktree.name)
                known = {sha, *(await self._mirrors.branches(mirror)).values()}
                left = await stray_commits(self._git, worktree, known, refs)
            if worktree.branch is not None and refs.get(HEADS + worktree.branch) != sha:
                own = await commit_of(self._git, worktree, HEADS + worktree.branch)
                if own and not await is_ancestor(self._git, worktree.history, own, sha):
                    left[worktree.branch] = own
            return left

    async def push(
        self, owner: str, name: str, sha: str, branch: str, expected_remote: str | None
    ) -> None:
        """Set the remote's branch to `sha`, a commit of the mirror. Idempotent.

        Nothing is overwritten: the branch must still be at `expected_remote`, and `sha` must
        contain that commit. If the branch is already at `sha`, it counts as pushed.

        Args:
            owner: of the repository.
            name: of the repository.
            sha: the commit.
            branch: the branch.
            expected_remote: the commit of the branch when the work began; None if the branch did
                not exist.

        Raises:
            JobFailure: BRANCH_MOVED if the branch or its history changed; otherwise the reason
                why the remote refused.
        """
        mirror = self._mirrors.mirror(owner, name)
        await self._mirrors.finish_replacement(mirror)
        with as_job_failures(self._mirrors.credentials, f"Pushing {mirror.full_name}"):
            await self._require_fast_forward(mirror, sha, branch, expected_remote)
            await self._push_lfs_files(mirror, sha)
            try:
                await self._mirrors.network.push(
                    mirror.url, mirror.objects, sha, branch, expected_remote
                )
            except GitError as error:
                await self._require_effect(mirror, branch, sha, error)
            await self._update_mirror(mirror, branch, sha)

    async def remote_contains(self, owner: str, name: str, branch: str, sha: str) -> bool:
        """Return whether the remote's branch contains `sha`, a commit of the mirror.

        Raises:
            JobFailure: the remote cannot be fetched.
        """
        mirror = await self._mirrors.fetch(owner, name)
        head = (await self._mirrors.branches(mirror)).get(branch)
        if head is None:
            return False
        with as_job_failures(self._mirrors.credentials, f"Comparing {mirror.full_name}"):
            return await self._mirrors.network.is_ancestor(mirror.objects, sha, head)

    async def delete_remote_branch(
        self, owner: str, name: str, branch: str, expected_sha: str
    ) -> None:
        """Delete the remote's branch if it is still at `expected_sha`. Idempotent.

        Raises:
            JobFailure: BRANCH_MOVED if the branch is at another commit; otherwise the reason why
                the remote refused.
        """
        mirror = self._mirrors.mirror(owner, name)
        with as_job_failures(self._mirrors.credentials, f"Deleting a branch of {mirror.full_name}"):
            objects = self._mirrors.scratch if not mirror.path.is_dir() else mirror.objects
            try:
                await self._mirrors.network.push(mirror.url, objects, None, branch, expected_sha)
            except GitError as error:
                await self._require_effect(mirror, branch, None, error)

    async def _unstage_untouched(self, worktree: Worktree) -> None:
        if worktree.files_tree is None:
            return
        place = worktree.place
        staged = await write_tree(self._git, place)
        head = await tree_of(self._git, place, "HEAD")
        wanted = await apply_tree_diff(self._git, place, head, worktree.files_tree, staged)
        if wanted != staged:
            await self._git.run("read-tree", "--reset", wanted, at=place, timeout=TREE_SECONDS)

    async def _has_staged(self, worktree: Worktree) -> bool:
        if self._has_merge(worktree):
            return True
        return not await self._git.check(
            "diff-index", "--cached", "--quiet", "HEAD", "--", at=worktree.place
        )

    def _has_merge(self, worktree: Worktree) -> bool:
        """Return whether a merge is not committed yet. It may leave the tree unchanged."""
        return files.is_file(worktree.git_dir, "MERGE_HEAD")

    async def _commit(self, worktree: Worktree, message: str, identity: Identity) -> None:
        try:
            await self._git.run(
                "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--no-status",
                "--cleanup=whitespace", "--file=-",
                at=worktree.place, variables=identity.environment(), timeout=TREE_SECONDS,
                stdin=_text(worktree, message),
            )  # fmt: skip
        except GitError as error:
            # git also exits with 1 when nothing is staged.
            if error.exit_code != 1 or await self._has_staged(worktree):
                raise

    async def _commit_onto(
        self, worktree: Worktree, branch_head: str, message: str, identity: Identity
    ) -> None:
        """Commit staged changes to the job's branch, which is ahead of the checked-out commit."""
        staged = await write_tree(self._git, worktree.place)
        tree = await rebase_changes_onto(self._git, worktree, staged, branch_head)
        if tree is None:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                f"Claude changed files on an older commit of {worktree.branch}. The changes "
                "conflict with newer commits, so nothing was published. The work is kept. Retry "
                "the job.",
            )
        if tree == await tree_of(self._git, worktree.history, branch_head):
            return
        commit = await self._git.run(
            "commit-tree", "--no-gpg-sign", "-p", branch_head, "-F", "-", tree,
            at=worktree.history, variables=identity.environment(),
            stdin=_text(worktree, message),
        )  # fmt: skip
        ref = f"{HEADS}{worktree.branch}"
        await self._git.run("update-ref", ref, commit.strip(), branch_head, at=worktree.history)

    async def _require_fast_forward(
        self, mirror: Mirror, sha: str, branch: str, expected: str | None
    ) -> None:
        if expected is None or expected == sha:
            return
        if not await self._mirrors.network.is_ancestor(mirror.objects, expected, sha):
            await self._require_commit(mirror, sha)
            raise JobFailure(
                FailureCode.BRANCH_MOVED,
                f"The work on {branch} does not contain {expected[:12]}, the remote's commit when "
                "the job began, because its history was rewritten. Nothing was overwritten. Retry "
                "the job.",
            )

    async def _require_commit(self, mirror: Mirror, sha: str) -> None:
        if not await self._mirrors.has_commit(mirror, sha):
            raise JobFailure(
                FailureCode.GIT_FAILED,
                f"The commit {sha[:12]} is not on this host and cannot be pushed. Retry the job.",
            )

    async def _push_lfs_files(self, mirror: Mirror, sha: str) -> None:
        """Upload the LFS files of a commit. The pre-push hook of git-lfs does not run here."""
        try:
            used = await lfs_and_submodules.require_lfs(self._mirrors, mirror.place, sha)
        except (GitError, FileNotFoundError):
            await self._require_commit(mirror, sha)
            raise
        if used:
            known = await list_refs(self._git, mirror.place, TRACKING)
            await self._mirrors.network.push_lfs_files(
                mirror.url, mirror.path, sha, known, [mirror.full_name]
            )

    async def _require_effect(
        self, mirror: Mirror, branch: str, sha: str | None, error: GitError
    ) -> None:
        """Raise `error` unless the push took effect before the connection failed."""
        try:
            actual = await self._mirrors.network.branch_head(mirror.url, branch)
        except GitError:
            raise error from None
        if actual != sha:
            raise error

    async def _update_mirror(self, mirror: Mirror, branch: str, sha: str) -> None:
        """Update the branch in the mirror. If that fails, the next fetch does it."""
        name = TRACKING + branch
        async with self._mirrors.lock(mirror.path):
            try:
                await self._git.run("update-ref", "--no-deref", name, sha, at=mirror.place)
            except GitError as error:
                _log.info("%s is not recorded in %s: %s", name, mirror.path, error)


def _text(worktree: Worktree, message: str) -> bytes:
    text = message.replace("\0", "").strip() or f"Work of job {worktree.job_id}"
    return text.encode("utf-8", "replace")
