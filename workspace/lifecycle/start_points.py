"""The commit that a worktree starts from, and whether its branch is possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.git.refs import SHA
from workspace.git.runner import GitError
from workspace.mirrors.mirrors import Mirror, Mirrors


@dataclass(frozen=True)
class StartPoint:
    """The start of a worktree.

    Args:
        sha: the commit to check out.
        base_sha: the commit that the work is compared with.
        files_sha: the commit whose files are checked out. Its differences from `sha` are staged.
        continued: whether `sha` is the head of an existing branch that the job continues.
        notices: sentences for the user.
    """

    sha: str
    base_sha: str
    files_sha: str
    continued: bool = False
    notices: tuple[str, ...] = ()

    @classmethod
    def at(cls, sha: str, *, continued: bool = False) -> StartPoint:
        """Start from a commit, without staged changes."""
        return cls(sha, sha, sha, continued)


def clash(branch: str, others: Iterable[str]) -> str | None:
    """Return the name in `others` that excludes `branch`, as `a` and `a/b` exclude each other."""
    for other in others:
        if branch.startswith(f"{other}/") or other.startswith(f"{branch}/"):
            return other
    return None


def refuse_clash(branch: str, others: Iterable[str]) -> None:
    """Refuse a branch that cannot exist beside the branches `others`.

    Raises:
        JobFailure: BRANCH_CONFLICT.
    """
    other = clash(branch, others)
    if other is not None:
        raise JobFailure(
            FailureCode.BRANCH_CONFLICT,
            f"The branch {branch} cannot exist beside the branch {other}, because git stores "
            "branches like files and directories. Use another name.",
        )


async def for_branch(mirrors: Mirrors, mirror: Mirror, branch: str, base: str | None) -> StartPoint:
    """Return the head of `branch` if the remote has it, otherwise the base.

    Args:
        mirrors: owns the mirror.
        mirror: already fetched.
        branch: the branch to work on.
        base: a branch of the remote, a full sha, or None for the remote's default branch.

    Raises:
        JobFailure: the base does not exist, or the name clashes with a branch of the remote.
    """
    branches = await mirrors.branches(mirror)
    if branch in branches:
        return StartPoint.at(branches[branch], continued=True)
    refuse_clash(branch, branches)
    return await for_revision(mirrors, mirror, base)


async def for_revision(mirrors: Mirrors, mirror: Mirror, revision: str | None) -> StartPoint:
    """Return the commit that `revision` names.

    Args:
        mirrors: owns the mirror.
        mirror: already fetched.
        revision: a full sha, a branch of the remote, or None for its default branch.

    Raises:
        JobFailure: the remote does not have that branch or commit.
    """
    if revision is None or not SHA.fullmatch(revision):
        branches = await mirrors.branches(mirror)
        return StartPoint.at(await _head_of(mirrors, mirror, branches, revision))
    await require_commit(mirrors, mirror, revision)
    return StartPoint.at(revision)


async def require_commit(mirrors: Mirrors, mirror: Mirror, sha: str) -> None:
    """Fetch a commit into the mirror if it is missing, even if no branch contains it any more.

    Raises:
        JobFailure: BASE_BRANCH_NOT_FOUND if the remote does not have it either.
    """
    if await mirrors.has_commit(mirror, sha):
        return
    try:
        await mirrors.network.fetch_commit(mirror.url, mirror.objects, sha)
    except GitError as error:
        if "not our ref" not in error.stderr:
            raise
        raise JobFailure(
            FailureCode.BASE_BRANCH_NOT_FOUND,
            f"{mirror.full_name} no longer has the commit {sha}. Post a new job.",
        ) from error


async def _head_of(
    mirrors: Mirrors, mirror: Mirror, branches: Mapping[str, str], branch: str | None
) -> str:
    branch = branch or await mirrors.default_branch(mirror)
    if branch in branches:
        return branches[branch]
    raise JobFailure(
        FailureCode.BASE_BRANCH_NOT_FOUND,
        f"{mirror.full_name} has no branch {branch} to start from. "
        + await _suggestion(mirrors, mirror, branch),
    )


async def _suggestion(mirrors: Mirrors, mirror: Mirror, missing: str) -> str:
    try:
        default = await mirrors.default_branch(mirror)
    except JobFailure:
        default = missing
    if default == missing:
        return "Correct the repository's default branch."
    return f"Its default branch is {default}: set that as the repository's default branch."
