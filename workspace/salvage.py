"""Work that nobody has pushed, kept in the mirror when its worktree goes."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from workspace.command import TREE_SECONDS
from workspace.identity import Identity
from workspace.mirrors import Mirrors
from workspace.patches import patch_between
from workspace.refusals import explained
from workspace.staging import stage_everything
from workspace.unfinished import remove_worktree_locks
from workspace.work_tip import ends, is_within, tip
from workspace.worktree import Worktree, checked_job_id

_REFS = "refs/orchestrator/salvage/"
_BASE = re.compile(r"^Base: ([0-9a-f]{40,64})$", re.MULTILINE)
_IDENTITY = Identity("Claude Code Orchestrator", "orchestrator@localhost")


@dataclass(frozen=True)
class _Work:
    """What a worktree holds: the commits that reach all of its history, and its files."""

    parents: tuple[str, ...]
    tree: str


class Salvage:
    """Keeps work under `refs/orchestrator/salvage/<job id>` of the mirror.

    Args:
        mirrors: the repositories.
    """

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._git = mirrors.git

    async def keep(self, worktree: Worktree) -> str | None:
        """Keep what is uncommitted (ignored files aside) or unpushed, and return the commit.

        The worktree and its index stay as they are. Kept again, the same work gives the same
        commit, and other work is added to it. Claude must have ended.

        Returns:
            The commit that has it all; None when there is nothing to keep.

        Raises:
            JobFailure: git or the disk refused.
        """
        async with self._mirrors.locks.hold(worktree.lock_file):
            return await self.keep_held(worktree)

    async def keep_held(self, worktree: Worktree) -> str | None:
        """Do what `keep` does, for a caller who holds the worktree's lock."""
        with explained(self._mirrors.credentials, "Keeping the work"):
            self._mirrors.restore(self._mirrors.mirror(worktree.owner, worktree.name))
            remove_worktree_locks(worktree)
            work = await self._work_in(worktree)
            return None if work is None else await self._store(worktree, work)

    async def kept(self, owner: str, name: str, job_id: str) -> str | None:
        """Return the commit that keeps a job's work; None when there is none."""
        mirror = self._mirrors.mirror(owner, name)
        if not mirror.path.is_dir():
            return None
        with explained(self._mirrors.credentials, "Looking for kept work"):
            found = await self._git.run(
                "rev-parse", "--quiet", "--verify", _REFS + checked_job_id(job_id),
                at=mirror.place, accept=(0, 1),
            )  # fmt: skip
        return found.strip() or None

    async def patch(self, owner: str, name: str, job_id: str) -> str | None:
        """Return a job's kept work as a patch from its base; None when nothing was kept.

        `git apply` takes it. It is text: if a file is not UTF-8, git's binary form is used.
        """
        sha = await self.kept(owner, name, job_id)
        if sha is None:
            return None
        mirror = self._mirrors.mirror(owner, name)
        with explained(self._mirrors.credentials, "Reading kept work"):
            commit = await self._git.run("cat-file", "commit", sha, at=mirror.place)
            base = _BASE.search(commit)
            if base is None:
                return None
            return await patch_between(
                self._git, mirror.objects, self._mirrors.scratch, base[1], sha
            )

    async def _work_in(self, worktree: Worktree) -> _Work | None:
        """Return what would be lost with the worktree; None when that is nothing."""
        head, branch = await ends(self._git, worktree)
        files = await self._tree_of_files(worktree, head)
        committed = await self._tree_of(worktree, head)
        if files == committed:
            if not await self._has_unpushed(worktree, head, branch):
                return None
            files = await self._tree_of(worktree, await tip(self._git, worktree))
        if branch is None or await is_within(self._git, worktree, branch, head):
            return _Work((head,), files)
        return _Work((head, branch), files)

    async def _has_unpushed(self, worktree: Worktree, head: str, branch: str | None) -> bool:
        wanted = [head] if branch is None else [head, branch]
        found = await self._git.run(
            "rev-list", "--max-count=1", *wanted, "--not", worktree.base_sha, "--remotes=origin",
            "--", at=worktree.history,
        )  # fmt: skip
        return bool(found)

    async def _tree_of(self, worktree: Worktree, commit: str) -> str:
        return (await self._git.run("rev-parse", f"{commit}^{{tree}}", at=worktree.history)).strip()

    async def _tree_of_files(self, worktree: Worktree, head: str) -> str:
        """Write the files as a tree, with an index of its own."""
        if not worktree.path.is_dir():
            return await self._tree_of(worktree, head)
        private = Path(tempfile.mkdtemp(dir=worktree.git_dir, prefix="salvage-"))
        try:
            place = replace(worktree.place, index=private / "index")
            if (worktree.git_dir / "index").is_file():
                shutil.copy2(worktree.git_dir / "index", private / "index")
            else:
                await self._git.run("read-tree", head, at=place)
            await stage_everything(self._git, place, lenient=True)
            return (await self._git.run("write-tree", at=place, timeout=TREE_SECONDS)).strip()
        finally:
            await asyncio.to_thread(shutil.rmtree, private, True)

    async def _store(self, worktree: Worktree, work: _Work) -> str:
        ref = _REFS + worktree.job_id
        earlier = await self.kept(worktree.owner, worktree.name, worktree.job_id)
        parents = list(work.parents)
        if earlier is not None:
            shape = await self._git.run(
                "log", "--max-count=1", "--format=%T %P", earlier, "--", at=worktree.history
            )
            tree, *known = shape.split()
            if tree == work.tree and known[: len(parents)] == parents:
                return earlier
            parents.append(earlier)
        arguments = [argument for parent in parents for argument in ("-p", parent)]
        text = f"Work of job {worktree.job_id} that was not pushed\n\nBase: {worktree.base_sha}\n"
        commit = await self._git.run(
            "commit-tree", "--no-gpg-sign", *arguments, "-F", "-", work.tree,
            at=worktree.history, variables=_IDENTITY.environment(), stdin=text.encode(),
        )  # fmt: skip
        await self._git.run("update-ref", ref, commit.strip(), earlier or "", at=worktree.history)
        return commit.strip()
