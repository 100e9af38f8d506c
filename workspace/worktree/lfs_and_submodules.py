"""Fetches LFS files and submodules, which are not in the repository of a worktree."""

from __future__ import annotations

from collections.abc import Collection

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.git.errors import failure_of
from workspace.git.runner import TREE_SECONDS, GitError, GitLocation
from workspace.mirrors.mirrors import Mirrors
from workspace.worktree.worktree import Worktree

_ACCESS_CODES = {
    FailureCode.GITHUB_AUTHENTICATION,
    FailureCode.GITHUB_PERMISSION,
    FailureCode.GITHUB_TOKEN_MISSING,
    FailureCode.REPOSITORY_NOT_FOUND,
}
_REGISTER_HINT = (
    "The token is used only for repositories that the same client has registered: register the "
    "repositories of private submodules with POST /clients/:id/repository. "
)
_ATTRIBUTES = (":(glob)**/.gitattributes",)


async def uses_lfs(mirrors: Mirrors, place: GitLocation, sha: str) -> bool:
    """Return whether a commit has files in Git LFS."""
    return await mirrors.git.check(
        "grep", "-q", "-F", "filter=lfs", sha, "--", *_ATTRIBUTES, at=place
    )


async def require_lfs(mirrors: Mirrors, place: GitLocation, sha: str) -> bool:
    """Return whether a commit has files in Git LFS.

    Raises:
        JobFailure: it has, and git-lfs is not installed. Claude would see pointer files, and could
            overwrite them.
    """
    used = await uses_lfs(mirrors, place, sha)
    if used and not mirrors.has_lfs:
        raise JobFailure(FailureCode.GIT_LFS_MISSING)
    return used


async def fetch_lfs_files(
    mirrors: Mirrors, worktree: Worktree, sha: str, repositories: Collection[str]
) -> None:
    """Replace the LFS pointers of a fresh worktree by their files.

    Args:
        mirrors: owns the mirror.
        worktree: fresh, with `sha` checked out.
        sha: the commit.
        repositories: the repositories that the token may be used for, as `owner/name`.
    """
    url = mirrors.mirror(worktree.owner, worktree.name).url
    await mirrors.network.fetch_lfs_files(url, worktree.mirror, sha, repositories)
    await mirrors.git.run("lfs", "checkout", at=worktree.place, timeout=TREE_SECONDS)


async def fetch_submodules(
    mirrors: Mirrors, worktree: Worktree, repositories: Collection[str]
) -> tuple[str, ...]:
    """Check out the submodules of a worktree, at any depth.

    Args:
        mirrors: owns the mirror.
        worktree: fresh.
        repositories: the repositories that the token may be used for, as `owner/name`.

    Returns:
        A notice for the user if a submodule could not be fetched and a retry would not help.

    Raises:
        JobFailure: the fetch failed, and a retry may succeed.
    """
    if not files.is_file(worktree.path, ".gitmodules"):
        return ()
    try:
        await mirrors.network.update_submodules(worktree.place, repositories)
    except GitError as error:
        failure = failure_of(error, mirrors.credentials, "Fetching the submodules")
        if failure.transient:
            raise failure from error
        hint = _REGISTER_HINT if failure.code in _ACCESS_CODES else ""
        return (f"Some submodules are missing from the worktree. {hint}{failure.message}",)
    return ()
