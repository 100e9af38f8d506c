"""Where a worktree starts: which commit, and whether the branch can be had at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.ids import is_id
from workspace.command import Git, GitError
from workspace.kept_commits import displaced
from workspace.mirrors import Mirror, Mirrors
from workspace.network import refs

_HEADS = "refs/heads/"
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


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
    if revision is None or not _SHA.fullmatch(revision):
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


async def make_room(git: Git, mirror: Mirror, branch: str, job_id: str) -> None:
    """See to it that `branch` can be made in the mirror, whose lock is held.

    Local branches in the way, which ended jobs left behind, are moved to
    `refs/orchestrator/displaced/<job id>/<Unix seconds>/`.

    Raises:
        JobFailure: another worktree has the branch, or has one that forbids the name.
    """
    used = await checked_out(git, mirror)
    holder = used.get(branch, job_id)
    if holder != job_id:
        raise JobFailure(
            FailureCode.BRANCH_IN_USE,
            f"The branch {branch} is in use by {_owner(holder)}. Wait until it is free, or use "
            "another branch name.",
            transient=True,
        )
    local = await refs(git, mirror.place, _HEADS)
    names = {name.removeprefix(_HEADS): sha for name, sha in local.items()}
    while (other := clash(branch, names)) is not None:
        if other in used:
            raise _clash_failure(branch, other)
        await _displace(git, mirror, other, names.pop(other), job_id)
    # Nobody has the branch and the mirror is locked, so this is what a killed command left.
    (mirror.path / f"{_HEADS}{branch}.lock").unlink(missing_ok=True)
    if branch in names:
        await _displace(git, mirror, branch, names[branch], job_id)


def _owner(directory: str) -> str:
    return f"job {directory}" if is_id(directory) else f"the worktree {directory}, of no job"


async def checked_out(git: Git, mirror: Mirror) -> dict[str, str]:
    """Return which directory has each branch checked out, by branch name; ours are named by job."""
    listing = await git.run("worktree", "list", "--porcelain", "-z", at=mirror.place)
    used: dict[str, str] = {}
    job_id = ""
    for line in listing.split("\0"):
        key, _, value = line.partition(" ")
        if key == "worktree":
            job_id = value.rpartition("/")[2]
        elif key == "branch":
            used[value.removeprefix(_HEADS)] = job_id
    return used


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


async def _displace(git: Git, mirror: Mirror, branch: str, sha: str, job_id: str) -> None:
    """Take a local branch out of the way; what only it has is kept under another name."""
    only_here = ("rev-list", "--max-count=1", sha, "--not", "--remotes=origin", "--")
    if await git.run(*only_here, at=mirror.place):
        await git.run("update-ref", displaced(job_id, branch), sha, at=mirror.place)
    await git.run("update-ref", "--no-deref", "-d", _HEADS + branch, sha, at=mirror.place)


def _clash_failure(branch: str, other: str) -> JobFailure:
    return JobFailure(
        FailureCode.BRANCH_CONFLICT,
        f"The branch {branch} cannot exist beside the branch {other}, because git keeps branches "
        "like files and directories. Use another name.",
    )
