"""Where a worktree starts that takes up what another job left."""

from __future__ import annotations

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.git.runner import TREE_SECONDS
from workspace.lifecycle import start_points
from workspace.lifecycle.start_points import StartPoint
from workspace.mirrors.mirrors import Mirror, Mirrors
from workspace.salvage.patches import commit_of_patch
from workspace.salvage.refs import SALVAGE, SalvageCommit, salvage_commit
from workspace.worktree.worktree import checked_job_id

_MAX_NAMED = 5


async def start_point_from_salvage(
    mirrors: Mirrors,
    mirror: Mirror,
    branch: str,
    source_job_id: str,
    base_sha: str,
    head_sha: str,
    patch: str | None,
) -> StartPoint:
    """Return where a new branch starts that is to deliver the work of an ended job.

    Where this machine keeps exactly that work, its commits are taken up as they are. Elsewhere,
    and where it keeps another state of it, the work is made of the patch.

    Args:
        mirrors: owns the mirror.
        mirror: fetched before.
        branch: the new branch.
        source_job_id: the job that left the work.
        base_sha: the commit that job began from.
        head_sha: the commit that keeps the work.
        patch: from `Salvage.kept`; None when it was too long.

    Raises:
        JobFailure: KEPT_WORK_GONE, or BRANCH_CONFLICT when the remote has such a branch.
    """
    branches = await mirrors.branches(mirror)
    if branch in branches:
        raise JobFailure(
            FailureCode.BRANCH_CONFLICT,
            f"The branch {branch} exists already, and kept work is published on a new one. Use "
            "another name.",
        )
    start_points.refuse_clash(branch, branches)
    kept = await salvage_commit(mirrors.git, mirror.place, checked_job_id(source_job_id))
    if kept is not None and kept.sha == head_sha:
        notices = (
            *await _left_out(mirrors, mirror, source_job_id, kept),
            *await _unresolved(mirrors, mirror, kept.base_sha, kept.sha),
        )
        return StartPoint(kept.lines[0], kept.base_sha, kept.sha, notices=notices)
    if patch is None:
        raise _gone(source_job_id, head_sha, kept)
    await _require_base(mirrors, mirror, base_sha)
    made = await commit_of_patch(mirrors.git, mirror.objects, mirrors.scratch, base_sha, patch)
    notices = await _unresolved(mirrors, mirror, base_sha, made)
    return StartPoint(base_sha, base_sha, made, notices=notices)


def _gone(job_id: str, head_sha: str, kept: SalvageCommit | None) -> JobFailure:
    if kept is None:
        return JobFailure(FailureCode.KEPT_WORK_GONE)
    return JobFailure(
        FailureCode.KEPT_WORK_GONE,
        f"This machine keeps another state of the work of job {job_id} than the one that was "
        f"recorded, which is too long to be kept as a patch. It is the commit {head_sha}, under "
        f"{SALVAGE}{job_id} in the mirror of the machine that ran the job last.",
    )


async def _left_out(
    mirrors: Mirrors, mirror: Mirror, job_id: str, kept: SalvageCommit
) -> tuple[str, ...]:
    """Say which commits of the work the branch will not contain; they stay where they are kept."""
    first, *others = kept.lines
    missing = [other for other in others if not await _contains(mirrors, mirror, first, other)]
    if not missing:
        return ()
    names = ", ".join(sha[:12] for sha in missing)
    return (
        f"Job {job_id} left more than one line of work, and this is the one it had checked out. "
        f"Not in it: {names}. They are kept in the repository's mirror on this machine, under "
        f"{SALVAGE}{job_id}.",
    )


async def _unresolved(mirrors: Mirrors, mirror: Mirror, base_sha: str, sha: str) -> tuple[str, ...]:
    """Name the files in which the job left a merge with conflicts."""
    names = await _with_markers(mirrors, mirror, sha)
    if names:
        names -= await _with_markers(mirrors, mirror, base_sha)
    if not names:
        return ()
    listing = ", ".join(sorted(names)[:_MAX_NAMED])
    return (f"A merge was left with conflicts. Resolve them before you merge this: {listing}.",)


async def _with_markers(mirrors: Mirrors, mirror: Mirror, sha: str) -> set[str]:
    listing = await mirrors.git.run(
        "grep", "-z", "--name-only", "--all-match", "-e", "^<<<<<<< ", "-e", "^>>>>>>> ", sha, "--",
        at=mirror.place, accept=(0, 1), timeout=TREE_SECONDS,
    )  # fmt: skip
    paths = {entry.partition(":")[2] for entry in listing.split("\0") if entry}
    return {path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in paths}


async def _contains(mirrors: Mirrors, mirror: Mirror, newer: str, older: str) -> bool:
    return await mirrors.git.says("merge-base", "--is-ancestor", older, newer, at=mirror.place)


async def _require_base(mirrors: Mirrors, mirror: Mirror, base_sha: str) -> None:
    try:
        await start_points.require_commit(mirrors, mirror, base_sha)
    except JobFailure as failure:
        if failure.code is not FailureCode.BASE_BRANCH_NOT_FOUND:
            raise
        raise JobFailure(
            FailureCode.KEPT_WORK_GONE,
            f"The work is kept as changes to the commit {base_sha}, which {mirror.full_name} no "
            "longer has. Post a new job.",
        ) from failure
