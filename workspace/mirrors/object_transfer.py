"""The commits of a job, brought from its private repository into the mirror as a pack.

The pack is made inside the sandbox. Outside, git checks every object before the mirror has one.
Bundles are not used: git before 2.46 does not check objects that it fetches from one (measured).
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
    """Brings commits of jobs into the mirrors.

    Args:
        mirrors: the repositories.
    """

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._git = mirrors.git

    async def copy_commit(self, worktree: Worktree, sha: str) -> None:
        """Copy a commit of a job, its history and its LFS files into the mirror. Idempotent.

        Claude must have ended. No ref of the mirror leads to the commit. The caller makes one, or
        uses the commit before the worktree is removed: until then the mirror is not packed.

        Args:
            worktree: the worktree whose private repository has the commit.
            sha: the commit.

        Raises:
            BrokenRepository: an object is malformed or missing.
            GitError: git or the disk refused.
        """
        mirror = self._mirrors.mirror(worktree.owner, worktree.name)
        if not SHA.fullmatch(sha):
            raise BrokenRepository(f"{sha[:100]!r} is not the name of a commit.")
        refs = await list_refs(self._git, mirror.place, TRACKING, SALVAGE + worktree.job_id)
        known = {worktree.base_sha, *refs.values()}
        if sha not in known and not await self._has_all(mirror, sha, known):
            async with scratch_repository(self._mirrors.scratch, mirror.objects, {}) as place:
                try:
                    pack = await self._pack(worktree, sha, known, place.git_dir)
                    await self._take(mirror, pack, place)
                    await self._require_all(mirror, sha, known)
                except GitError as error:
                    raise await self._meaning(error, worktree, mirror) from error
        await asyncio.to_thread(copy_lfs_files, worktree.git_dir, mirror.path)

    async def _has_all(self, mirror: Mirror, sha: str, known: Collection[str]) -> bool:
        try:
            await self._require_all(mirror, sha, known)
        except GitError:
            return False
        return True

    async def _require_all(self, mirror: Mirror, sha: str, known: Collection[str]) -> None:
        """Look for every object of `sha` that the commits `known` do not have.

        Raises:
            GitError: one is missing.
        """
        await self._git.run(
            "rev-list", "--objects", "--quiet", "--stdin",
            at=mirror.place, stdin=_span(sha, known), timeout=TREE_SECONDS,
        )  # fmt: skip

    async def _pack(
        self, worktree: Worktree, sha: str, known: Collection[str], directory: Path
    ) -> Path:
        pack = directory / "job.pack"
        with pack.open("wb") as file:
            await self._git.run(
                "pack-objects", "--quiet", "--revs", "--stdout", "--delta-base-offset",
                at=worktree.history, stdin=_span(sha, known), output=file.fileno(),
                timeout=TREE_SECONDS,
            )  # fmt: skip
            os.fsync(file.fileno())
        return pack

    async def _take(self, mirror: Mirror, pack: Path, place: GitLocation) -> None:
        """Check every object of a pack, then move the pack into the mirror."""
        name = await self._git.run(
            "index-pack", "--strict", str(pack), at=place, timeout=TREE_SECONDS
        )
        # The lock keeps a replacement of the mirror from separating the files.
        async with self._mirrors.lock(mirror.path):
            _move(pack, mirror.objects / "pack" / f"pack-{name.strip()}.pack")

    async def _meaning(self, error: GitError, worktree: Worktree, mirror: Mirror) -> Exception:
        """Return `BrokenRepository` if the job's repository is the reason, else the error."""
        if is_no_space(error) or error.exit_code != 128:
            return error
        if not await self._mirrors.is_sound(mirror, worktree.base_sha):
            return error
        return BrokenRepository(f"Git said: {error.stderr.strip()[-300:]}")


def _span(sha: str, known: Collection[str]) -> bytes:
    return "".join(f"{line}\n" for line in (sha, *(f"^{each}" for each in known))).encode()


def _move(pack: Path, target: Path) -> None:
    """Move a pack with its files; git uses it as soon as the last one, its index, is there."""
    target.parent.mkdir(exist_ok=True)
    for suffix in (".pack", ".rev", ".idx"):
        file = pack.with_suffix(suffix)
        if file.exists():
            file.chmod(0o444)
            file.replace(target.with_suffix(suffix))
