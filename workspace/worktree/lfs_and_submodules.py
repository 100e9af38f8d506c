"""The parts of a worktree that are not in its own repository: LFS files and submodules."""

from __future__ import annotations

from collections.abc import Collection

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.git.errors import failure_of
from workspace.git.runner import TREE_SECONDS, GitError, GitLocation
from workspace.mirrors.mirrors import Mirrors
from workspace.worktree.worktree import Worktree

_CLOSED = {
    FailureCode.GITHUB_AUTHENTICATION,
    FailureCode.GITHUB_PERMISSION,
    FailureCode.GITHUB_TOKEN_MISSING,
    FailureCode.REPOSITORY_NOT_FOUND,
}
_REGISTER = (
    "The token is used only for repositories that the same client has registered: register those "
    "of private submodules with POST /clients/:id/repository. "
)
_ATTRIBUTES = (":(glob)**/.gitattributes",)


async def uses_lfs(mirrors: Mirrors, place: GitLocation, sha: str) -> bool:
    """Tell whether a commit keeps files in Git LFS."""
    return await mirrors.git.check(
        "grep", "-q", "-F", "filter=lfs", sha, "--", *_ATTRIBUTES, at=place
    )


async def require_lfs(mirrors: Mirrors, place: GitLocation, sha: str) -> bool:
    """Tell whether a commit keeps files in Git LFS, which then must be installed.

    Raises:
        JobFailure: it is not. Claude would see pointers, and could commit over them.
    """
    used = await uses_lfs(mirrors, place, sha)
    if used and not mirrors.has_lfs:
        raise JobFailure(FailureCode.GIT_LFS_MISSING)
    return used


async def fetch_lfs_files(
    mirrors: Mirrors, worktree: Worktree, sha: str, repositories: Collection[str]
) -> None:
    """Replace the pointers of a checked-out worktree by the files.

    Args:
        mirrors: owns the mirror.
        worktree: in which nobody has worked yet.
        sha: the commit that is checked out.
        repositories: those that the token is offered for, as `owner/name`.
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
        worktree: in which nobody has worked yet.
        repositories: those that the token is offered for, as `owner/name`.

    Returns:
        A notice for the job's owner when some could not be fetched for good.

    Raises:
        JobFailure: a repetition may succeed.
    """
    if not files.is_file(worktree.path, ".gitmodules"):
        return ()
    try:
        await mirrors.network.update_submodules(worktree.place, repositories)
    except GitError as error:
        failure = failure_of(error, mirrors.credentials, "Fetching the submodules")
        if failure.transient:
            raise failure from error
        hint = _REGISTER if failure.code in _CLOSED else ""
        return (f"Some submodules are missing from the worktree. {hint}{failure.message}",)
    return ()
