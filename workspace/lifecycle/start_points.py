"""Where a worktree starts: which commit, and whether the branch can be had at all."""

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
    """Where a worktree starts.

    Args:
        sha: the commit that is checked out.
        base_sha: the commit that the work is compared with.
        files_sha: the commit whose files are there, staged.
        continued: whether `sha` is the head of the wanted branch itself.
        notices: what the job's owner should know, in sentences.
    """

    sha: str
    base_sha: str
    files_sha: str
    continued: bool = False
    notices: tuple[str, ...] = ()

    @classmethod
    def at(cls, sha: str, *, continued: bool = False) -> StartPoint:
        """Start with exactly the files of a commit."""
        return cls(sha, sha, sha, continued)


def clash(branch: str, others: Iterable[str]) -> str | None:
    """Return the name among `others` that forbids `branch`: `a` and `a/b` exclude each other."""
    for other in others:
        if branch.startswith(f"{other}/") or other.startswith(f"{branch}/"):
            return other
    return None


def refuse_clash(branch: str, others: Iterable[str]) -> None:
    """Refuse a branch that cannot exist beside those of the remote.

    Raises:
        JobFailure: BRANCH_CONFLICT.
    """
    other = clash(branch, others)
    if other is not None:
        raise _clash_failure(branch, other)


async def for_branch(mirrors: Mirrors, mirror: Mirror, branch: str, base: str | None) -> StartPoint:
    """Return where work on `branch` starts: at its head if it exists, else at the base.

    Args:
        mirrors: owns the mirror.
        mirror: fetched before.
        branch: the branch to work on.
        base: what a new one starts from: a branch of the remote, a full sha, or None for the
            remote's default branch.

    Raises:
        JobFailure: the base does not exist, or the name clashes with a branch of the remote.
    """
    branches = await mirrors.branches(mirror)
    if branch in branches:
        return StartPoint.at(branches[branch], continued=True)
    refuse_clash(branch, branches)
    return await for_reading(mirrors, mirror, base)


async def for_reading(mirrors: Mirrors, mirror: Mirror, revision: str | None) -> StartPoint:
    """Return the commit that `revision` names.

    Args:
        mirrors: owns the mirror.
        mirror: fetched before.
        revision: a full sha, a branch of the remote, or None for its default branch.

    Raises:
        JobFailure: there is no such branch, or the commit is gone from the remote too.
    """
    if revision is None or not SHA.fullmatch(revision):
        branches = await mirrors.branches(mirror)
        return StartPoint.at(await _head_of(mirrors, mirror, branches, revision))
    await require_commit(mirrors, mirror, revision)
    return StartPoint.at(revision)


async def require_commit(mirrors: Mirrors, mirror: Mirror, sha: str) -> None:
    """Have a commit in the mirror, which no branch of the remote may contain any more.

    Raises:
        JobFailure: BASE_BRANCH_NOT_FOUND when the remote does not have it either.
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
    wanted = branch or await mirrors.default_branch(mirror)
    if wanted in branches:
        return branches[wanted]
    raise JobFailure(
        FailureCode.BASE_BRANCH_NOT_FOUND,
        f"{mirror.full_name} has no branch {wanted} to start from. "
        + await _suggestion(mirrors, mirror, wanted),
    )


async def _suggestion(mirrors: Mirrors, mirror: Mirror, wanted: str) -> str:
    try:
        default = await mirrors.default_branch(mirror)
    except JobFailure:
        default = wanted
    if default == wanted:
        return "Correct the repository's default branch."
    return f"Its default branch is {default}: set that as the repository's default branch."


def _clash_failure(branch: str, other: str) -> JobFailure:
    return JobFailure(
        FailureCode.BRANCH_CONFLICT,
        f"The branch {branch} cannot exist beside the branch {other}, because git keeps branches "
        "like files and directories. Use another name.",
    )
