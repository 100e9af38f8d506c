"""What a job has committed, brought from its private repository into the mirror: data only.

A bundle is made inside the sandbox and fetched outside of it, where git checks every object.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.command import TREE_SECONDS, GitError
from workspace.kept_commits import SALVAGE
from workspace.lfs_files import copy_lfs_files
from workspace.mirrors import Mirror, Mirrors
from workspace.network import TRACKING, refs
from workspace.scratch_repository import scratch_repository
from workspace.worktree import Worktree

_REF = "refs/orchestrator/crossing"
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CHECKED = (("fetch.fsckObjects", "true"), ("protocol.file.allow", "always"))


class Crossing:
    """Brings commits of jobs into the mirrors.

    Args:
        mirrors: the repositories.
    """

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._git = mirrors.git

    async def bring(self, worktree: Worktree, sha: str) -> None:
        """Have a commit of a job, and all that it needs, in the mirror. Idempotent.

        Claude must have ended. No ref of the mirror leads to the commit: the caller makes one, or
        uses it before the worktree is removed, since no mirror is packed before.

        Args:
            worktree: whose private repository has the commit.
            sha: the commit.

        Raises:
            JobFailure: an object is malformed.
            GitError: git or the disk refused.
        """
        mirror = self._mirrors.mirror(worktree.owner, worktree.name)
        if not _SHA.fullmatch(sha):
            raise GitError(("bundle",), None, f"{sha[:100]!r} is not the name of a commit")
        if not await self._mirrors.has_commit(mirror, sha):
            await self._bundle_across(worktree, mirror, sha)
        await asyncio.to_thread(copy_lfs_files, worktree.git_dir, mirror.path)

    async def _bundle_across(self, worktree: Worktree, mirror: Mirror, sha: str) -> None:
        known = {
            **await refs(self._git, mirror.place, TRACKING),
            **await refs(self._git, mirror.place, SALVAGE + worktree.job_id),
            f"{_REF}-base": worktree.base_sha,
        }
        with tempfile.NamedTemporaryFile(dir=self._mirrors.scratch, prefix="bundle-") as bundle:
            await self._write_bundle(worktree, sha, known, bundle.fileno())
            try:
                await self._read_bundle(mirror, Path(bundle.name), known)
            except GitError as error:
                raise _refused(error) from error

    async def _write_bundle(
        self, worktree: Worktree, sha: str, known: Mapping[str, str], output: int
    ) -> None:
        place = worktree.history
        await self._git.run("update-ref", "--no-deref", _REF, sha, at=place)
        wanted = [_REF, *(f"^{commit}" for commit in sorted({*known.values()}))]
        await self._git.run(
            "bundle", "create", "--quiet", "-", "--stdin",
            at=place, stdin="\n".join(wanted).encode(), output=output, timeout=TREE_SECONDS,
        )  # fmt: skip

    async def _read_bundle(self, mirror: Mirror, bundle: Path, known: Mapping[str, str]) -> None:
        async with scratch_repository(self._mirrors.scratch, mirror.objects, known) as place:
            await self._git.run(
                "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                "--recurse-submodules=no", "--", str(bundle), f"+{_REF}:{_REF}",
                at=place, settings=_CHECKED, timeout=TREE_SECONDS,
            )  # fmt: skip


def _refused(error: GitError) -> Exception:
    """Return the failure of a commit that no repository should take."""
    if not re.search(r"fsck|malformed|invalid", error.stderr):
        return error
    return JobFailure(
        FailureCode.GIT_FAILED,
        "The job's commits have an object that git does not accept, so nothing was published: "
        f"{error.stderr.strip()[-300:]}",
    )
