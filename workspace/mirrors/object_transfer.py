"""Copy commits from the private repository of a job into the mirror, as a pack.

The pack is created in the sandbox. Outside, git checks all objects before any reaches the mirror.
Bundles are unsuitable: git before 2.46 does not check the objects in a bundle (measured).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

from workspace.git.errors import is_no_space
from workspace.git.refs import SHA, TRACKING, list_refs
from workspace.git.runner import TREE_SECONDS, GitError, GitLocation
from workspace.git.scratch_repository import scratch_repository
from workspace.mirrors.mirrors import Mirror, Mirrors
from workspace.salvage.refs import SALVAGE
from workspace.worktree.lfs_files import copy_lfs_files
from workspace.worktree.private_repository import BrokenRepository
from workspace.worktree.worktree import Worktree


class ObjectTransfer:
    """Copies commits of jobs into the mirrors.

    Args:
        mirrors: the mirrors of this host.
    """

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._git = mirrors.git

    async def copy_commit(self, worktree: Worktree, sha: str) -> None:
        """Copy a commit of a job, its history and its LFS files into the mirror. Idempotent.

        Claude must have ended. The copy is unreachable until the caller creates a ref. The mirror
        is not packed as long as the worktree exists, so the copy is safe until then.

        Args:
            worktree: the worktree of the job.
            sha: the commit.

        Raises:
            BrokenRepository: an object is malformed or missing.
            GitError: git or the disk refused.
        """
        mirror = self._mirrors.mirror(worktree.owner, worktree.name)
        if not SHA.fullmatch(sha):
            raise BrokenRepository(f"{sha[:100]!r} is not a commit id.")
        refs = await list_refs(self._git, mirror.place, TRACKING, SALVAGE + worktree.job_id)
        known = {worktree.base_sha, *refs.values()}
        if sha not in known and not await self._has_all(mirror, sha, known):
            async with scratch_repository(self._mirrors.scratch, mirror.objects, {}) as place:
                try:
                    pack = await self._pack(worktree, sha, known, place.git_dir)
                    await self._install(mirror, pack, place)
                    await self._require_all(mirror, sha, known)
                except GitError as error:
                    raise await self._explain(error, worktree, mirror) from error
        await asyncio.to_thread(copy_lfs_files, worktree.git_dir, mirror.path)

    async def _has_all(self, mirror: Mirror, sha: str, known: Collection[str]) -> bool:
        try:
            await self._require_all(mirror, sha, known)
        except GitError:
            return False
        return True

    async def _require_all(self, mirror: Mirror, sha: str, known: Collection[str]) -> None:
        """Check that the mirror has all objects of `sha` that are not in `known` commits.

        Raises:
            GitError: an object is missing.
        """
        await self._git.run(
            "rev-list", "--objects", "--quiet", "--stdin",
            at=mirror.place, stdin=_revisions(sha, known), timeout=TREE_SECONDS,
        )  # fmt: skip

    async def _pack(
        self, worktree: Worktree, sha: str, known: Collection[str], directory: Path
    ) -> Path:
        pack = directory / "job.pack"
        with pack.open("wb") as file:
            await self._git.run(
                "pack-objects", "--quiet", "--revs", "--stdout", "--delta-base-offset",
                at=worktree.history, stdin=_revisions(sha, known), output=file.fileno(),
                timeout=TREE_SECONDS,
            )  # fmt: skip
            os.fsync(file.fileno())
        return pack

    async def _install(self, mirror: Mirror, pack: Path, place: GitLocation) -> None:
        """Check all objects of a pack, then move the pack into the mirror."""
        name = await self._git.run(
            "index-pack", "--strict", str(pack), at=place, timeout=TREE_SECONDS
        )
        # Without the lock, a replacement of the mirror could separate the files of the pack.
        async with self._mirrors.lock(mirror.path):
            _move(pack, mirror.objects / "pack" / f"pack-{name.strip()}.pack")

    async def _explain(self, error: GitError, worktree: Worktree, mirror: Mirror) -> Exception:
        """Return `BrokenRepository` if the job's repository is the reason, otherwise the error."""
        if is_no_space(error) or error.exit_code != 128:
            return error
        if not await self._mirrors.is_sound(mirror, worktree.base_sha):
            return error
        return BrokenRepository(f"Git said: {error.stderr.strip()[-300:]}")


def _revisions(sha: str, known: Collection[str]) -> bytes:
    return "".join(f"{line}\n" for line in (sha, *(f"^{commit}" for commit in known))).encode()


def _move(pack: Path, target: Path) -> None:
    """Move a pack and its files. The index is last: with it, git starts to use the pack."""
    target.parent.mkdir(exist_ok=True)
    for suffix in (".pack", ".rev", ".idx"):
        file = pack.with_suffix(suffix)
        if file.exists():
            file.chmod(0o444)
            file.replace(target.with_suffix(suffix))
