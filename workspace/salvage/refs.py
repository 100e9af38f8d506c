"""The commits under `refs/orchestrator/salvage/` that keep undelivered work."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workspace.git.runner import Git, GitLocation

SALVAGE = "refs/orchestrator/salvage/"

_HEADER = re.compile(r"^(tree|parent) ([0-9a-f]{40,64})$", re.MULTILINE)
_BASE = re.compile(r"^Base: ([0-9a-f]{40,64})$", re.MULTILINE)


@dataclass(frozen=True)
class SalvageCommit:
    """A commit that keeps the work of a job.

    Args:
        sha: the commit.
        tree: its files, as the job left them.
        parents: the commits that reach the whole history of the job. The files belong to the first.
            The others are the job's branch if it diverged, other branches, tags and stash entries,
            and the previous salvage commit.
        base_sha: the commit that the job started from.
    """

    sha: str
    tree: str
    parents: tuple[str, ...]
    base_sha: str


def message(job_id: str, base_sha: str) -> str:
    """Return the message of a salvage commit."""
    return f"Work of job {job_id} that was not pushed\n\nBase: {base_sha}\n"


async def salvage_commit(git: Git, place: GitLocation, job_id: str) -> SalvageCommit | None:
    """Read the commit that keeps the work of a job; None if there is none."""
    output = await git.run(
        "rev-parse", "--quiet", "--verify", SALVAGE + job_id, at=place, accept=(0, 1)
    )
    if not output:
        return None
    sha = output.strip()
    headers, _, text = (await git.run("cat-file", "commit", sha, at=place)).partition("\n\n")
    fields = _HEADER.findall(headers)
    parents = tuple(value for key, value in fields if key == "parent")
    base = _BASE.search(text)
    # `message` always writes a base. A commit without one was not written by the orchestrator.
    if base is None or not parents:
        return None
    return SalvageCommit(sha, dict(fields)["tree"], parents, base[1])
