"""Changes that Claude makes on an older commit of its branch."""

from __future__ import annotations

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude
from workspace.worktree.worktree import Worktree


async def check_out_older_commit(host: Host) -> tuple[Worktree, str]:
    """Commit on the branch of a worktree, and check out the commit before."""
    worktree = await host.start("job")
    (worktree.path / "one").write_text("x")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "-m", "Claude: one")
    sha = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    return worktree, sha


async def test_changes_are_committed_onto_the_branch(host: Host) -> None:
    worktree, sha = await check_out_older_commit(host)
    (worktree.path / "coverage.xml").write_text("<c/>\n")
    (worktree.path / "README.md").unlink()
    for _ in range(2):
        head = await host.commit(worktree)
        log = as_claude(worktree.path, "log", "--format=%P %s", "-1", head)
        assert log == f"{sha} Do it"
        changed = as_claude(worktree.path, "diff", "--name-status", sha, head)
        assert changed.split() == ["D", "README.md", "A", "coverage.xml"]


async def test_conflicting_changes_are_refused_and_kept(host: Host) -> None:
    worktree, sha = await check_out_older_commit(host)
    (worktree.path / "one").write_text("otherwise\n")
    with pytest.raises(JobFailure, match="older commit of feature/job"):
        await host.commit(worktree)
    assert as_claude(worktree.path, "rev-parse", "feature/job") == sha
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    lines = as_claude(host.mirror_path, "log", "-1", "--format=%P", "refs/orchestrator/salvage/job")
    assert sha in lines.split()
    assert "+otherwise" in (await host.patch() or "")


async def test_changes_are_kept_together_with_the_branch(host: Host) -> None:
    worktree, _ = await check_out_older_commit(host)
    (worktree.path / "coverage.xml").write_text("<c/>\n")
    assert await host.removal.remove(OWNER, NAME, "job") is not None
    patch = await host.patch() or ""
    assert {"+++ b/one", "+++ b/coverage.xml"} <= set(patch.splitlines())
