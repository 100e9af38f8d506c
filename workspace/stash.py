"""git's stash, which all worktrees of a repository have in common."""

from __future__ import annotations

from workspace.command import Git, lines
from workspace.kept_commits import displaced
from workspace.mirrors import Mirror

_STASH = "refs/stash"
_CLOSED = f"{_STASH}/jobs-share-it"


async def close_stash(git: Git, mirror: Mirror, job_id: str) -> None:
    """Keep jobs from stashing in the mirror, whose lock is held. Repeatable.

    One would take out what another had put in, and what is in it is in no worktree, where it would
    be published or kept. Beside a ref below it git cannot make `refs/stash`: `git stash` fails and
    leaves the files as they are (measured with git 2.39). Entries that are there all the same
    become refs below `refs/orchestrator/displaced/`.
    """
    found = await git.run("for-each-ref", "--format=%(refname)", _STASH, at=mirror.place)
    if lines(found) == [_CLOSED]:
        return
    entries = await git.run(
        "rev-list", "--walk-reflogs", "--ignore-missing", _STASH, "--", at=mirror.place
    )
    for number, entry in enumerate(lines(entries)):
        ref = displaced(job_id, f"stash-{number}")
        await git.run("update-ref", "--no-deref", ref, entry, at=mirror.place)
    for name in lines(found):
        await git.run("update-ref", "--no-deref", "-d", name, at=mirror.place)
    nothing = await git.run("hash-object", "-w", "--stdin", at=mirror.place, stdin=b"")
    await git.run("update-ref", "--no-deref", _CLOSED, nothing.strip(), at=mirror.place)
