"""From files in a worktree to a branch on the remote; every step can be repeated."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.git.author import Identity
from workspace.git.errors import explained
from workspace.git.gitlinks import gitlinks
from workspace.git.remote import TRACKING, refs
from workspace.git.runner import TREE_SECONDS, GitError
from workspace.git.staging import stage
from workspace.git.trees import apply_tree_diff, tree_of, written
from workspace.inspection.forward_port import newer_branch_head, rebase_changes_onto
from workspace.inspection.head import head_and_branch, head_commit, is_within
from workspace.inspection.in_progress import refuse_unfinished
from workspace.inspection.status import status_of
from workspace.inspection.stray_branches import stray_commits
from workspace.inspection.submodule_changes import Submodules
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirror
from workspace.mirrors.object_transfer import Crossing
from workspace.worktree import lfs_and_submodules
from workspace.worktree.worktree import Worktree

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """What a worktree has to publish.

    Args:
        sha: the commit to push.
        commits_ahead: how many commits it has that the base has not.
        files_changed: how many files differ from the base.
    """

    sha: str
    commits_ahead: int
    files_changed: int


class Publishing:
    """Commits, pushes, and asks the remote what it has.

    Args:
        worktrees: the worktrees, and through them the mirrors.
    """

    def __init__(self, worktrees: Worktrees) -> None:
        self._worktrees = worktrees
        self._mirrors = worktrees.mirrors
        self._git = worktrees.mirrors.git
        self._submodules = Submodules(worktrees.mirrors)
        self._crossing = Crossing(worktrees.mirrors)

    async def commit_all(self, worktree: Worktree, message: str, identity: Identity) -> None:
        """Commit everything that is not ignored; do nothing when nothing differs.

        Files that differed from their commit when the worktree was made, and are as they were,
        stay as they are in HEAD.

        Claude must have ended. No hook runs and nothing is signed.

        Raises:
            JobFailure: git or the disk refused, a merge or rebase was left unfinished, or a
                submodule has what its own repository has not.
        """
        if not worktree.exists:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                "The job's worktree is gone from this machine. Retry the job.",
            )
        with explained(self._mirrors.credentials, "Committing the work"):
            async with self._mirrors.locks.hold(worktree.lock_file):
                await self._worktrees.restore(worktree)
                found = await status_of(self._git, worktree.place)
                links = await gitlinks(self._git, worktree.history)
                refuse_unfinished(worktree, found.unmerged)
                await self._submodules.refuse_work(worktree, links)
                if found.is_clean and not links and not self._has_merge(worktree):
                    return
                await stage(self._git, worktree.place, found.nested, links)
                await self._unstage_untouched(worktree)
                if await self._is_worth_a_commit(worktree):
                    newer = await newer_branch_head(self._git, worktree)
                    if newer is None:
                        await self._commit(worktree, message, identity)
                    else:
                        await self._commit_onto(worktree, newer, message, identity)

    async def head(self, worktree: Worktree) -> Head:
        """Bring what there is to publish into the mirror, and describe it. Idempotent.

        It is what is checked out, unless the job's branch has that and more. The commits that
        Claude made itself are part of it.
        """
        mirror = self._mirrors.mirror(worktree.owner, worktree.name)
        with explained(self._mirrors.credentials, "Reading the work"):
            sha = await head_commit(self._git, worktree)
            await self._crossing.bring(worktree, sha)
            span = f"{worktree.base_sha}..{sha}"
            ahead = await self._git.run("rev-list", "--count", span, "--", at=mirror.place)
            changed = await self._git.run(
                "diff", "--name-only", "-z", "--no-ext-diff", worktree.base_sha, sha, "--",
                at=mirror.place, timeout=TREE_SECONDS,
            )  # fmt: skip
        return Head(sha, int(ahead), changed.count("\0"))

    async def left_out(self, worktree: Worktree, sha: str) -> dict[str, str]:
        """Return what `sha` does not contain of the branches in which Claude worked, by name."""
        with explained(self._mirrors.credentials, "Reading the work"):
            mirror = self._mirrors.mirror(worktree.owner, worktree.name)
            known = {sha, *(await self._mirrors.branches(mirror)).values()}
            left = await stray_commits(self._git, worktree, known)
            _, own = await head_and_branch(self._git, worktree)
            if own is not None and not await is_within(self._git, worktree, own, sha):
                left[worktree.branch or ""] = own
            return left

    async def push(
        self, owner: str, name: str, sha: str, branch: str, expected_remote: str | None
    ) -> None:
        """Set the remote's branch to `sha`, a commit of the mirror.

        Nothing is overwritten: the branch must be where it was, and `sha` must contain that. A
        branch that already is at `sha` counts as pushed.

        Args:
            owner: of the repository.
            name: of the repository.
            sha: the commit.
            branch: the branch.
            expected_remote: where the branch was when the work began; None for nowhere.

        Raises:
            JobFailure: BRANCH_MOVED when that is not so; else why the remote refused.
        """
        mirror = self._mirrors.mirror(owner, name)
        await self._mirrors.settle(mirror)
        with explained(self._mirrors.credentials, f"Pushing {mirror.full_name}"):
            await self._require_fast_forward(mirror, sha, branch, expected_remote)
            await self._push_lfs_files(mirror, sha)
            try:
                await self._mirrors.network.push(
                    mirror.url, mirror.objects, sha, branch, expected_remote
                )
            except GitError as error:
                await self._unless_remote_is(mirror, branch, sha, error)
            await self._remember(mirror, branch, sha)

    async def remote_contains(self, owner: str, name: str, branch: str, sha: str) -> bool:
        """Tell whether the remote's branch is at `sha`, a commit of the mirror, or has grown on.

        Raises:
            JobFailure: the remote cannot be fetched.
        """
        mirror = await self._mirrors.fetch(owner, name)
        head = (await self._mirrors.branches(mirror)).get(branch)
        if head is None:
            return False
        with explained(self._mirrors.credentials, f"Comparing {mirror.full_name}"):
            return await self._mirrors.network.is_ancestor(mirror.objects, sha, head)

    async def delete_remote_branch(
        self, owner: str, name: str, branch: str, expected_sha: str
    ) -> None:
        """Delete the remote's branch if it still is at `expected_sha`; gone already is fine.

        Raises:
            JobFailure: BRANCH_MOVED when it is elsewhere; else why the remote refused.
        """
        mirror = self._mirrors.mirror(owner, name)
        with explained(self._mirrors.credentials, f"Deleting a branch of {mirror.full_name}"):
            objects = self._mirrors.scratch if not mirror.path.is_dir() else mirror.objects
            try:
                await self._mirrors.network.push(mirror.url, objects, None, branch, expected_sha)
            except GitError as error:
                await self._unless_remote_is(mirror, branch, None, error)

    async def _unstage_untouched(self, worktree: Worktree) -> None:
        if worktree.files_tree is None:
            return
        place = worktree.place
        staged = await written(self._git, place)
        head = await tree_of(self._git, place, "HEAD")
        wanted = await apply_tree_diff(self._git, place, head, worktree.files_tree, staged)
        if wanted != staged:
            await self._git.run("read-tree", "--reset", wanted, at=place, timeout=TREE_SECONDS)

    async def _is_worth_a_commit(self, worktree: Worktree) -> bool:
        if self._has_merge(worktree):
            return True
        return not await self._git.says(
            "diff-index", "--cached", "--quiet", "HEAD", "--", at=worktree.place
        )

    def _has_merge(self, worktree: Worktree) -> bool:
        """Return whether a merge waits for its commit; its tree may be as it was before."""
        return files.is_file(worktree.git_dir, "MERGE_HEAD")

    async def _commit(self, worktree: Worktree, message: str, identity: Identity) -> None:
        await self._git.run(
            "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--no-status",
            "--cleanup=whitespace", "--file=-",
            at=worktree.place, variables=identity.environment(), timeout=TREE_SECONDS,
            stdin=_text(worktree, message),
        )  # fmt: skip

    async def _commit_onto(
        self, worktree: Worktree, branch_head: str, message: str, identity: Identity
    ) -> None:
        """Add what is staged to the job's branch, of which an older commit is checked out."""
        staged = await written(self._git, worktree.place)
        tree = await rebase_changes_onto(self._git, worktree, staged, branch_head)
        if tree is None:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                f"Claude had an older commit of {worktree.branch} checked out, with changes that "
                "do not go with the newer ones, so nothing was published. The work is kept. Retry "
                "the job.",
            )
        if tree == await tree_of(self._git, worktree.history, branch_head):
            return
        commit = await self._git.run(
            "commit-tree", "--no-gpg-sign", "-p", branch_head, "-F", "-", tree,
            at=worktree.history, variables=identity.environment(),
            stdin=_text(worktree, message),
        )  # fmt: skip
        ref = f"refs/heads/{worktree.branch}"
        await self._git.run("update-ref", ref, commit.strip(), branch_head, at=worktree.history)

    async def _require_fast_forward(
        self, mirror: Mirror, sha: str, branch: str, expected: str | None
    ) -> None:
        if not await self._mirrors.has_commit(mirror, sha):
            raise JobFailure(
                FailureCode.GIT_FAILED,
                f"The commit {sha[:12]} is not on this machine, so it cannot be pushed. Retry the "
                "job.",
            )
        if expected is None or expected == sha:
            return
        if not await self._mirrors.network.is_ancestor(mirror.objects, expected, sha):
            raise JobFailure(
                FailureCode.BRANCH_MOVED,
                f"The work on {branch} no longer contains {expected[:12]}, where the remote's "
                "branch was when the job began: its history was rewritten. Nothing was "
                "overwritten. Retry the job.",
            )

    async def _push_lfs_files(self, mirror: Mirror, sha: str) -> None:
        """Upload what git-lfs's own pre-push hook would, were hooks allowed to run."""
        if await lfs_and_submodules.require_lfs(self._mirrors, mirror.place, sha):
            known = await refs(self._git, mirror.place, TRACKING)
            await self._mirrors.network.push_lfs_files(
                mirror.url, mirror.path, sha, known, [mirror.full_name]
            )

    async def _unless_remote_is(
        self, mirror: Mirror, branch: str, sha: str | None, error: GitError
    ) -> None:
        """Pass when the remote has what was wanted: the connection may have died after that."""
        try:
            actual = await self._mirrors.network.branch_head(mirror.url, branch)
        except GitError:
            raise error from None
        if actual != sha:
            raise error

    async def _remember(self, mirror: Mirror, branch: str, sha: str) -> None:
        """Record in the mirror where the branch is now; if that fails, the next fetch does it."""
        name = TRACKING + branch
        async with self._mirrors.lock(mirror.path):
            try:
                await self._git.run("update-ref", "--no-deref", name, sha, at=mirror.place)
            except GitError as error:
                _log.info("%s is not recorded in %s: %s", name, mirror.path, error)


def _text(worktree: Worktree, message: str) -> bytes:
    text = message.replace("\0", "").strip() or f"Work of job {worktree.job_id}"
    return text.encode("utf-8", "replace")
