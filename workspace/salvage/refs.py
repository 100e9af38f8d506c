"""The commits that keep work nobody has pushed: where they are, since when, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workspace.git.runner import Git, GitLocation

SALVAGE = "refs/orchestrator/salvage/"

_HEADER = re.compile(r"^(tree|parent) ([0-9a-f]{40,64})$", re.MULTILINE)
_BASE = re.compile(r"^Base: ([0-9a-f]{40,64})$", re.MULTILINE)


@dataclass(frozen=True)
class SalvageCommit:
    """One commit that keeps the work of a job.

    Args:
        sha: the commit itself.
        tree: the files as the job left them.
        lines: the commits that reach all of the job's history. The first is where its files
            belong; the others are its branch if that went elsewhere, and what was kept earlier.
        base_sha: the commit that the job began from.
    """

    sha: str
    tree: str
    lines: tuple[str, ...]
    base_sha: str


def message(job_id: str, base_sha: str) -> str:
    """Return the message of a commit that keeps the work of a job."""
    return f"Work of job {job_id} that was not pushed\n\nBase: {base_sha}\n"


async def salvage_commit(git: Git, place: GitLocation, job_id: str) -> SalvageCommit | None:
    """Return the commit that keeps the work of a job; None when nothing was kept.

    A commit that says no base was not made here, so it keeps nothing.
    """
    found = await git.run(
        "rev-parse", "--quiet", "--verify", SALVAGE + job_id, at=place, accept=(0, 1)
    )
    if not found:
        return None
    sha = found.strip()
    headers, _, text = (await git.run("cat-file", "commit", sha, at=place)).partition("\n\n")
    named = _HEADER.findall(headers)
    lines = tuple(value for key, value in named if key == "parent")
    base = _BASE.search(text)
    if base is None or not lines:
        return None
    return SalvageCommit(sha, dict(named)["tree"], lines, base[1])
