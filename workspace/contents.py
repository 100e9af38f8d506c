"""The parts of a worktree that are not in its own repository: LFS files and submodules."""

from __future__ import annotations

from urllib.parse import urlsplit

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.command import NETWORK_SECONDS, GitError, Place, Setting
from workspace.mirrors import Mirrors
from workspace.refusals import failure_of
from workspace.worktree import Worktree

_ATTRIBUTES = (":(glob)**/.gitattributes",)


async def uses_lfs(mirrors: Mirrors, place: Place, sha: str) -> bool:
    """Tell whether a commit keeps files in Git LFS."""
    return await mirrors.git.says(
        "grep", "-q", "-F", "filter=lfs", sha, "--", *_ATTRIBUTES, at=place
    )


async def require_lfs(mirrors: Mirrors, place: Place, sha: str) -> bool:
    """Tell whether a commit keeps files in Git LFS, which then must be installed.

    Raises:
        JobFailure: it is not. Claude would see pointers, and could commit over them.
    """
    used = await uses_lfs(mirrors, place, sha)
    if used and not mirrors.has_lfs:
        raise JobFailure(FailureCode.GIT_LFS_MISSING)
    return used


async def fetch_lfs_files(mirrors: Mirrors, worktree: Worktree) -> None:
    """Replace the pointers of a checked-out worktree by the files."""
    await mirrors.git.run(
        "lfs", "pull", "origin",
        at=worktree.place, settings=mirrors.network.settings(), timeout=NETWORK_SECONDS,
    )  # fmt: skip


async def fetch_submodules(mirrors: Mirrors, worktree: Worktree) -> tuple[str, ...]:
    """Check out the submodules of a worktree, at any depth.

    Returns:
        A notice for the job's owner when some could not be fetched for good.

    Raises:
        JobFailure: a repetition may succeed.
    """
    if not (worktree.path / ".gitmodules").is_file():
        return ()
    try:
        await mirrors.git.run(
            "submodule", "--quiet", "update", "--recursive", "--checkout",
            at=worktree.place, settings=_submodule_settings(mirrors), timeout=NETWORK_SECONDS,
        )  # fmt: skip
    except GitError as error:
        failure = failure_of(error, mirrors.credentials, "Fetching the submodules")
        if failure.transient:
            raise failure from error
        return (f"Some submodules are missing from the worktree. {failure.message}",)
    return ()


def _submodule_settings(mirrors: Mirrors) -> list[Setting]:
    """Return settings that reach submodules of the same server by token, however they are named."""
    server = mirrors.credentials.server_url.rstrip("/")
    host = urlsplit(server).hostname or ""
    by_ssh = (f"git@{host}:", f"ssh://git@{host}/")
    return [
        *mirrors.network.settings(),
        # Every submodule counts, without `submodule init` writing into the shared configuration.
        ("submodule.active", "."),
        *((f"url.{server}/.insteadOf", address) for address in by_ssh),
    ]
