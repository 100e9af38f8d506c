"""The start point of a worktree that continues the kept work of another job."""

from __future__ import annotations

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.git.refs import is_ancestor
from workspace.git.runner import TREE_SECONDS
from workspace.git.text import MAX_NAMED_PATHS, join_paths
from workspace.lifecycle import start_points
from workspace.lifecycle.start_points import StartPoint
from workspace.mirrors.mirrors import Mirror, Mirrors
from workspace.salvage.patches import commit_of_patch
from workspace.salvage.refs import SALVAGE, SalvageCommit, salvage_commit
from workspace.worktree.worktree import checked_job_id


async def start_point_from_salvage(
    mirrors: Mirrors,
    mirror: Mirror,
    branch: str,
    source_job_id: str,
    base_sha: str,
    head_sha: str,
    patch: str | None,
) -> StartPoint:
    """Return the start point of a new branch with the kept work of an ended job.

    If this host has exactly that work, its commits are used. Otherwise the patch is applied.

    Args:
        mirrors: owns the mirror.
        mirror: already fetched.
        branch: the new branch.
        source_job_id: the job that left the work.
        base_sha: the commit that the other job started from.
        head_sha: the commit that keeps the work.
        patch: from `Salvage.kept`; None if it was too long.

    Raises:
        JobFailure: KEPT_WORK_GONE, or BRANCH_CONFLICT if the remote already has the branch or a
            name that excludes it.
    """
    branches = await mirrors.branches(mirror)
    if branch in branches:
        raise JobFailure(
            FailureCode.BRANCH_CONFLICT,
            f"The branch {branch} already exists, and kept work is published on a new branch. Use "
            "another name.",
        )
    start_points.refuse_clash(branch, branches)
    kept = await salvage_commit(mirrors.git, mirror.place, checked_job_id(source_job_id))
    if kept is not None and kept.sha == head_sha:
        notices = (
            *await _omitted_commits(mirrors, mirror, source_job_id, kept),
            *await _new_conflicts(mirrors, mirror, kept.base_sha, kept.sha),
        )
        return StartPoint(kept.parents[0], kept.base_sha, kept.sha, notices=notices)
    if patch is None:
        raise _gone(source_job_id, head_sha, kept)
    await _require_base(mirrors, mirror, base_sha)
    commit = await commit_of_patch(mirrors.git, mirror.objects, mirrors.scratch, base_sha, patch)
    notices = await _new_conflicts(mirrors, mirror, base_sha, commit)
    return StartPoint(base_sha, base_sha, commit, notices=notices)


def _gone(job_id: str, head_sha: str, kept: SalvageCommit | None) -> JobFailure:
    if kept is None:
        return JobFailure(FailureCode.KEPT_WORK_GONE)
    return JobFailure(
        FailureCode.KEPT_WORK_GONE,
        f"This host has a different version of the work of job {job_id} than the recorded one, "
        f"whose patch was too long to store. The recorded work is commit {head_sha}, under "
        f"{SALVAGE}{job_id} in the mirror on the host that last ran the job.",
    )


async def _omitted_commits(
    mirrors: Mirrors, mirror: Mirror, job_id: str, kept: SalvageCommit
) -> tuple[str, ...]:
    """Return a notice if the new branch does not contain all commits of the work."""
    first, *others = kept.parents
    missing = [
        other for other in others if not await is_ancestor(mirrors.git, mirror.place, other, first)
    ]
    if not missing:
        return ()
    names = ", ".join(sha[:12] for sha in missing)
    return (
        f"Job {job_id} left commits on several branches, and this branch continues the one that it "
        f"had checked out. Not included: {names}. They are kept in the repository's mirror on this "
        f"host, under {SALVAGE}{job_id}.",
    )


async def _new_conflicts(
    mirrors: Mirrors, mirror: Mirror, base_sha: str, sha: str
) -> tuple[str, ...]:
    """Return a notice if the job left a merge with unresolved conflicts."""
    paths = await _with_markers(mirrors, mirror, sha)
    if paths:
        # Files such as a manual of git may contain markers that are no conflict.
        paths -= await _with_markers(mirrors, mirror, base_sha)
    if not paths:
        return ()
    names = join_paths(paths, MAX_NAMED_PATHS)
    return (f"The job left a merge with conflicts. Resolve them before you merge this: {names}.",)


async def _with_markers(mirrors: Mirrors, mirror: Mirror, sha: str) -> set[str]:
    output = await mirrors.git.run(
        "grep", "-z", "--name-only", "--all-match", "-e", "^<<<<<<< ", "-e", "^>>>>>>> ", sha, "--",
        at=mirror.place, accept=(0, 1), timeout=TREE_SECONDS,
    )  # fmt: skip
    return {entry.partition(":")[2] for entry in output.split("\0") if entry}


async def _require_base(mirrors: Mirrors, mirror: Mirror, base_sha: str) -> None:
    try:
        await start_points.require_commit(mirrors, mirror, base_sha)
    except JobFailure as failure:
        if failure.code is not FailureCode.BASE_BRANCH_NOT_FOUND:
            raise
        raise JobFailure(
            FailureCode.KEPT_WORK_GONE,
            f"The work is stored as changes to commit {base_sha}, which {mirror.full_name} no "
            "longer has. Post a new job.",
        ) from failure
