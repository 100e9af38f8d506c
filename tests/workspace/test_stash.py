"""git's stash is common to all worktrees, so no job may put its work there."""

from __future__ import annotations

import time

import pytest

from tests.workspace.conftest import NAME, OWNER, Room, as_claude


async def test_nothing_is_stashed_and_nothing_lost(room: Room) -> None:
    for job_id in ("one", "two"):
        worktree = await room.start(job_id)
        (worktree.path / "README.md").write_text("changed\n")
        (worktree.path / "new").write_text(job_id)
        for arguments in (
            ["stash"],
            ["stash", "--include-untracked"],
            ["stash", "push", "README.md"],
        ):
            with pytest.raises(AssertionError, match="Cannot save the current status"):
                as_claude(worktree.path, *arguments)
        assert as_claude(worktree.path, "status", "--short") == "M README.md\n?? new"
        assert as_claude(worktree.path, "stash", "list") == ""
        await room.publish(worktree)
        assert (worktree.path / "new").read_text() == job_id


async def test_what_is_in_it_all_the_same_is_moved_aside(room: Room) -> None:
    worktree = await room.start("one")
    as_claude(room.mirror_path, "update-ref", "-d", "refs/stash/jobs-share-it")
    entries: list[str] = []
    for text in ("first\n", "second\n"):
        (worktree.path / "README.md").write_text(text)
        as_claude(worktree.path, "stash")
        entries.insert(0, as_claude(worktree.path, "rev-parse", "refs/stash"))
    before = int(time.time())
    await room.start("two")
    for number, entry in enumerate(entries):
        name = f"refs/orchestrator/displaced/two/*/stash-{number}"
        fields = "--format=%(objectname) %(refname)"
        moved = as_claude(room.mirror_path, "for-each-ref", fields, name)
        sha, ref = moved.split()
        assert sha == entry
        assert int(ref.split("/")[4]) >= before
    assert as_claude(worktree.path, "stash", "list") == ""
    await room.start("three")


async def test_changes_that_an_unfinished_rebase_set_aside_are_kept(room: Room) -> None:
    worktree = await room.start("job")
    for text in ("one\n", "two\n"):
        (worktree.path / "README.md").write_text(text)
        as_claude(worktree.path, "commit", "--all", "--message", text)
    (worktree.path / "src" / "app.py").write_text("set aside\n")
    onto = ("rebase", "--autostash", "--onto", "HEAD~2", "HEAD~1")
    with pytest.raises(AssertionError, match="could not apply"):
        as_claude(worktree.path, *onto)
    as_claude(worktree.path, "reset", "--hard")
    assert await room.removal.remove(OWNER, NAME, "job") is not None
    ref = "refs/orchestrator/salvage/job"
    parents = as_claude(room.mirror_path, "log", "-1", "--format=%P", ref).split()
    kept = [as_claude(room.mirror_path, "show", f"{each}:src/app.py") for each in parents]
    assert "set aside" in kept
