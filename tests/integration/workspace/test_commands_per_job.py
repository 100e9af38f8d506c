"""How many git commands a plain job takes: each is a process, and they were most of its time."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import subprocesses
from tests.integration.workspace.conftest import NAME, OWNER, REGISTERED, Host, as_claude

PREPARE, PUBLISH, CLEAN_UP = 7, 16, 6


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    started = []
    run = subprocesses.run

    async def counted(command: list[str], **options: Any) -> subprocesses.ProcessResult:
        started.append(" ".join(command))
        return await run(command, **options)

    monkeypatch.setattr(subprocesses, "run", counted)
    return started


async def test_a_plain_job_takes_at_most_30_commands(host: Host, commands: list[str]) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    commands.clear()
    mirror = await host.mirrors.fetch(OWNER, NAME)
    assert "main" in await host.mirrors.branches(mirror)
    worktree = await host.worktrees.create_for_branch(
        OWNER, NAME, "job", "feature/job", "main", REGISTERED, mirror
    )
    assert len(commands) <= PREPARE, commands

    (worktree.path / "new").write_text("work\n")
    commands.clear()
    sha = await host.publish(worktree)
    assert await host.publishing.left_out(worktree, sha) == {}
    assert len(commands) <= PUBLISH, commands

    commands.clear()
    assert await host.removal.remove(OWNER, NAME, "job") is None
    assert len(commands) <= CLEAN_UP, commands
    assert host.remote()["feature/job"] == sha


@pytest.mark.parametrize("flag", ["--untracked-cache", "--split-index"])
async def test_work_after_publishing_is_kept_whatever_the_index_claims(
    host: Host, flag: str
) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("work\n")
    await host.publish(worktree)
    as_claude(worktree.path, "update-index", flag)
    as_claude(worktree.path, "status")
    (worktree.path / "src" / "late").write_text("late\n")
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert "late" in (kept.patch or "")


async def test_deletions_on_a_branch_without_commits_are_kept(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "--orphan", "empty")
    as_claude(worktree.path, "rm", "-r", "--quiet", "--force", ".")
    assert as_claude(worktree.path, "status", "--porcelain") == ""
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert "-# Shop" in (kept.patch or "")


async def test_a_link_to_another_repository_that_status_ignores_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    await host.publish(worktree)
    sha = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "update-index", "--add", "--cacheinfo", f"160000,{sha},part")
    (worktree.path / "part").mkdir()
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert "Subproject commit" in (kept.patch or "")
