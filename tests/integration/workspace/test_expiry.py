from __future__ import annotations

import logging
import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Host, as_claude
from workspace.mirrors.gc import MirrorPacking

OLD = datetime(2020, 1, 1, tzinfo=UTC)
LIMIT = datetime(2020, 6, 1, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def make_old(host: Host, ref: str) -> None:
    """Change the date of a ref's commit to OLD."""
    date = {"GIT_COMMITTER_DATE": OLD.isoformat(), **CLAUDE.environment()}
    shape = as_claude(host.mirror_path, "log", "-1", "--format=%T %P", ref).split()
    parents = [argument for parent in shape[1:] for argument in ("-p", parent)]
    body = as_claude(host.mirror_path, "log", "-1", "--format=%B", ref)
    commit = as_claude(
        host.mirror_path, "commit-tree", "-m", body, *parents, shape[0], variables=date
    )
    as_claude(host.mirror_path, "update-ref", ref, commit)


async def keep_work(host: Host, job_id: str) -> str:
    """Keep the work of a job, and return the ref."""
    (await host.start(job_id)).path.joinpath("new").write_text(job_id)
    assert await host.removal.remove(OWNER, NAME, job_id) is not None
    return f"refs/orchestrator/salvage/{job_id}"


async def test_only_old_work_expires(host: Host) -> None:
    old = await keep_work(host, "old")
    await keep_work(host, "young")
    make_old(host, old)
    assert await host.salvage.kept(OWNER, NAME, "old") is not None
    assert await host.expiry.expire(OLD) == []
    assert await host.expiry.expire(LIMIT) == [old]
    assert await host.expiry.expire(LIMIT) == []
    assert await host.salvage.kept(OWNER, NAME, "old") is None
    assert await host.patch("young") is not None


async def test_excluded_work_does_not_expire(host: Host) -> None:
    excluded, old = await keep_work(host, "excluded"), await keep_work(host, "old")
    make_old(host, excluded)
    make_old(host, old)
    assert await host.expiry.expire(LIMIT, {"excluded"}) == [old]
    assert await host.expiry.expire(LIMIT) == [excluded]


async def test_packed_refs_expire(host: Host) -> None:
    ref = await keep_work(host, "job")
    make_old(host, ref)
    as_claude(host.mirror_path, "pack-refs", "--all")
    assert await host.expiry.expire(LIMIT) == [ref]
    assert await host.salvage.kept(OWNER, NAME, "job") is None


async def test_ref_without_a_commit_is_deleted(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    readme = as_claude(host.mirror_path, "rev-parse", "refs/remotes/origin/main:README.md")
    as_claude(host.mirror_path, "update-ref", "refs/orchestrator/salvage/job", readme)
    assert await host.expiry.expire(LIMIT) == ["refs/orchestrator/salvage/job"]


async def test_damaged_mirror_does_not_stop_the_others(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.github.create_repository(OWNER, "Aaa")
    broken = await host.mirrors.fetch(OWNER, "Aaa")
    (broken.path / "HEAD").unlink()
    old = await keep_work(host, "old")
    make_old(host, old)
    with caplog.at_level(logging.WARNING):
        assert await host.expiry.expire(LIMIT) == [old]
    assert str(broken.path) in caplog.text


async def test_packing_deletes_the_objects_of_expired_work(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspace.mirrors.gc._MAX_LOOSE", 0)
    old = await keep_work(host, "old")
    make_old(host, old)
    sha = as_claude(host.mirror_path, "rev-parse", old)
    await host.expiry.expire(LIMIT)
    for file in host.mirror_path.glob("objects/??/*"):
        os.utime(file, (OLD.timestamp(), OLD.timestamp()))
    assert await MirrorPacking(host.worktrees).pack_idle() == [host.mirror_path]
    mirror = host.mirrors.mirror(OWNER, NAME)
    assert not await host.mirrors.has_commit(mirror, sha)


async def test_moved_aside_directories_expire(host: Host) -> None:
    worktree = await host.start("job")
    os.utime(worktree.path, (OLD.timestamp(), OLD.timestamp()))
    shutil.rmtree(worktree.git_dir)
    await host.start("job")
    (host.mirror_path / "HEAD").unlink()
    await host.mirrors.fetch(OWNER, NAME)
    aside = [*host.worktrees.orphaned.iterdir(), *host.mirrors.damaged.iterdir()]
    await host.expiry.expire(now() - timedelta(hours=1))
    assert [entry.exists() for entry in aside] == [True, True]
    await host.expiry.expire(now() + timedelta(hours=1))
    assert [entry.exists() for entry in aside] == [False, False]


async def test_empty_host_has_nothing_to_expire(host: Host) -> None:
    assert await host.expiry.expire(now()) == []
