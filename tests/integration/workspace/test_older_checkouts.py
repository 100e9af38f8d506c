"""Claude goes back to an older commit of its branch, and changes something there."""

from __future__ import annotations

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude
from workspace.worktree.worktree import Worktree


async def look_back(room: Room) -> tuple[Worktree, str]:
    """A worktree with a commit on its branch, and the one before checked out."""
    worktree = await room.start("job")
    (worktree.path / "one").write_text("x")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "-m", "Claude: one")
    sha = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    return worktree, sha


async def test_what_is_changed_on_an_older_commit_goes_onto_the_branch(room: Room) -> None:
    worktree, sha = await look_back(room)
    (worktree.path / "coverage.xml").write_text("<c/>\n")
    (worktree.path / "README.md").unlink()
    for _ in range(2):
        head = await room.commit(worktree)
        log = as_claude(worktree.path, "log", "--format=%P %s", "-1", head)
        assert log == f"{sha} Do it"
        changed = as_claude(worktree.path, "diff", "--name-status", sha, head)
        assert changed.split() == ["D", "README.md", "A", "coverage.xml"]


async def test_what_does_not_go_with_the_branch_is_refused_and_kept(room: Room) -> None:
    worktree, sha = await look_back(room)
    (worktree.path / "one").write_text("otherwise\n")
    with pytest.raises(JobFailure, match="older commit of feature/job"):
        await room.commit(worktree)
    assert as_claude(worktree.path, "rev-parse", "feature/job") == sha
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    lines = as_claude(room.mirror_path, "log", "-1", "--format=%P", "refs/orchestrator/salvage/job")
    assert sha in lines.split()
    assert "+otherwise" in (await room.patch() or "")


async def test_what_is_changed_on_an_older_commit_is_kept_with_the_branch(room: Room) -> None:
    worktree, _ = await look_back(room)
    (worktree.path / "coverage.xml").write_text("<c/>\n")
    assert await room.removal.remove(OWNER, NAME, "job") is not None
    patch = await room.patch() or ""
    assert {"+++ b/one", "+++ b/coverage.xml"} <= set(patch.splitlines())
