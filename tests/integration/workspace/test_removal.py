from __future__ import annotations

import logging
import os
import shutil
import time

import pytest

from domain.errors import (
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    JobFailure,
    OrchestratorError,
)
from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree


def refs(host: Host, prefix: str) -> list[str]:
    printed = as_claude(host.mirror_path, "for-each-ref", "--format=%(refname)", prefix)
    return printed.splitlines()


def remaining_files(host: Host, worktree: Worktree) -> list[str]:
    return sorted(entry.name for entry in worktree.path.parent.iterdir())


async def is_live(job_id: str) -> bool:
    return job_id == "live"


async def is_never_needed(job_id: str) -> bool:
    return False


async def remove(host: Host, job_id: str) -> Salvaged | None:
    return await host.removal.remove(OWNER, NAME, job_id)


async def test_removing_leaves_nothing_behind(host: Host) -> None:
    worktree = await host.start("job")
    assert await remove(host, "job") is None
    assert remaining_files(host, worktree) == []
    assert refs(host, "refs") == ["refs/remotes/origin/HEAD", "refs/remotes/origin/main"]
    assert await host.worktrees.find(OWNER, NAME, "job") is None
    assert not list(host.worktrees.trash.iterdir())
    as_claude(host.mirror_path, "fsck")


async def test_untracked_file_is_kept_as_a_patch(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "untracked.txt").write_text("hours of work\n")
    assert await remove(host, "job") is not None
    assert not worktree.path.exists()
    assert "+hours of work" in (await host.patch() or "")


async def test_removal_is_idempotent(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    kept = await remove(host, "job")
    assert await remove(host, "job") == kept
    assert await remove(host, "never-was") is None


async def test_removal_in_a_repository_that_was_never_fetched(host: Host) -> None:
    assert await host.removal.remove(OWNER, "Other", "job") is None


async def test_branch_can_be_used_again(host: Host) -> None:
    await host.start("job1", "feature/x")
    await remove(host, "job1")
    worktree = await host.start("job2", "feature/x")
    assert worktree.base_sha == host.remote()["main"]


async def test_read_only_worktree_is_removed(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    worktree = await host.worktrees.create_detached(OWNER, NAME, "task", None)
    await remove(host, "task")
    assert remaining_files(host, worktree) == []


async def test_worktree_deleted_by_hand_is_cleaned_up(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    shutil.rmtree(worktree.path)
    assert await host.worktrees.find(OWNER, NAME, "job") is None
    await remove(host, "job")
    assert remaining_files(host, worktree) == []
    await host.start("job2", "feature/x")


async def test_worktree_deleted_by_hand_does_not_hold_its_branch(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    shutil.rmtree(worktree.path)
    await host.start("job2", "feature/x")


async def test_missing_dot_git_file_loses_no_work(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    (worktree.path / ".git").unlink()
    await host.start("another")
    kept = await remove(host, "job")
    assert kept is not None
    assert "+x" in (await host.patch() or "")


async def test_files_without_a_repository_are_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    shutil.rmtree(worktree.git_dir)
    kept = await remove(host, "job")
    assert kept is not None
    assert kept.base_sha == worktree.base_sha
    assert "+x" in (kept.patch or "")
    assert remaining_files(host, worktree) == []


async def test_remains_of_an_unfinished_job_are_moved_aside(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    shutil.rmtree(worktree.git_dir)
    again = await host.start("job")
    assert not (again.path / "new").exists()
    [orphan] = host.worktrees.orphaned.glob("job-*/new")
    assert orphan.read_text() == "x"


async def test_work_that_cannot_be_kept_stops_the_removal(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    objects = worktree.mirror / "objects"
    aside = objects.rename(objects.with_name("elsewhere"))
    with pytest.raises(JobFailure):
        await remove(host, "job")
    assert (worktree.path / "new").read_text() == "x"
    aside.rename(objects)
    assert await remove(host, "job") is not None


async def test_sweep_removes_worktrees_without_a_live_job(host: Host) -> None:
    host.github.create_repository("Other", "Place")
    await host.mirrors.fetch("Other", "Place")
    other = await host.worktrees.create_for_branch("Other", "Place", "dead2", "b", "main")
    live, dead = await host.start("live"), await host.start("dead1")
    (dead.path / "new").write_text("x")
    assert await host.removal.sweep(is_live) == ["dead1", "dead2"]
    assert live.path.is_dir()
    assert not dead.path.exists()
    assert not other.path.exists()
    assert await host.salvage.kept(OWNER, NAME, "dead1") is not None
    assert await host.removal.sweep(is_live) == []


async def test_kept_work_is_recorded_before_the_removal(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    recorded: list[tuple[str, Salvaged]] = []

    async def refuse(job_id: str, kept: Salvaged) -> None:
        raise DependencyUnavailable("The store does not answer.", "store")

    async def record(job_id: str, kept: Salvaged) -> None:
        assert len(recorded) > 0 or (worktree.path / "new").exists()
        recorded.append((job_id, kept))

    with pytest.raises(DependencyUnavailable):
        await host.removal.remove(OWNER, NAME, "job", refuse)
    assert await host.removal.sweep(is_never_needed, refuse) == []
    assert (worktree.path / "new").read_text() == "x"
    kept = await host.removal.remove(OWNER, NAME, "job", record)
    assert kept is not None
    assert not worktree.path.exists()
    assert await host.removal.remove(OWNER, NAME, "job", record) == kept
    assert recorded == [("job", kept)] * 2


async def test_sweep_records_kept_work(host: Host) -> None:
    recorded: dict[str, Salvaged] = {}

    async def record(job_id: str, kept: Salvaged) -> None:
        recorded[job_id] = kept

    for job_id in ("clean", "edited"):
        worktree = await host.start(job_id)
    (worktree.path / "new").write_text("x")
    assert await host.removal.sweep(is_never_needed, record) == ["clean", "edited"]
    assert recorded == {"edited": await host.salvage.kept(OWNER, NAME, "edited")}


@pytest.mark.parametrize(
    "error",
    [
        DependencyUnavailable("It does not answer.", "store"),
        DependencyFailed("It refuses.", "store"),
        InvalidRequest("It is too long."),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_failed_record_does_not_stop_the_sweep(
    host: Host, caplog: pytest.LogCaptureFixture, error: OrchestratorError
) -> None:
    async def record(job_id: str, kept: Salvaged) -> None:
        if job_id == "bad":
            raise error

    for job_id in ("bad", "good"):
        (await host.start(job_id)).path.joinpath("new").write_text(job_id)
    with caplog.at_level(logging.WARNING):
        assert await host.removal.sweep(is_never_needed, record) == ["good"]
    assert (host.worktrees.path(OWNER, NAME, "bad") / "new").read_text() == "bad"
    assert f"job bad was not removed: {error.message}" in caplog.text


async def test_sweep_deletes_leftovers_of_crashes(host: Host) -> None:
    await host.start("live")
    (host.worktrees.trash / "old-1" / "old").mkdir(parents=True)
    old, young = host.mirrors.scratch / "mirror-old", host.mirrors.scratch / "mirror-young"
    for directory in (old, young):
        (directory / "objects").mkdir(parents=True)
    os.utime(old, (time.time() - 86_400, time.time() - 86_400))
    await host.removal.sweep(is_live)
    assert not list(host.worktrees.trash.iterdir())
    assert [entry.name for entry in host.mirrors.scratch.iterdir()] == ["mirror-young"]


async def test_broken_worktree_does_not_stop_the_sweep(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.github.create_repository("Other", "Place")
    mirror = await host.mirrors.fetch("Other", "Place")
    bad = await host.worktrees.create_for_branch("Other", "Place", "bad", "b", "main")
    good = await host.start("good")
    (bad.path / "new").write_text("x")
    mirror.objects.rename(mirror.path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        assert await host.removal.sweep(is_never_needed) == ["good"]
    assert not good.path.exists()
    assert (bad.path / "new").exists()
    assert "job bad was not removed" in caplog.text


async def test_empty_host_has_nothing_to_sweep(host: Host) -> None:
    assert await host.removal.sweep(is_never_needed) == []
