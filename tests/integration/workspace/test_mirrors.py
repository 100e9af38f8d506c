from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.errors import InvalidRequest, JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import NAME, OWNER, TOKEN, Host, as_claude, until
from workspace.git.runner import GitError

TRACKING = "refs/remotes/origin/"


def tracked(host: Host) -> dict[str, str]:
    printed = as_claude(
        host.mirror_path, "for-each-ref", "--format=%(objectname) %(refname)", TRACKING
    )
    rows = (line.split(" ", 1) for line in printed.split("\n") if line)
    return {name.removeprefix(TRACKING): sha for sha, name in rows if not name.endswith("/HEAD")}


def commit(host: Host, branch: str, text: str = "x") -> str:
    return host.github.commit(OWNER, NAME, branch, {"file.txt": text}, f"On {branch}")


async def test_mirror_has_all_branches_and_the_default_branch(host: Host) -> None:
    commit(host, "other/main")
    mirror = await host.mirrors.fetch(OWNER, NAME)
    assert mirror.path == host.mirror_path
    assert tracked(host) == host.remote() == await host.mirrors.branches(mirror)
    assert as_claude(mirror.path, "symbolic-ref", f"{TRACKING}HEAD") == f"{TRACKING}main"
    assert as_claude(mirror.path, "for-each-ref", "refs/heads") == ""


async def test_fetching_again_follows_the_remote(host: Host) -> None:
    commit(host, "gone")
    commit(host, "moves")
    await host.mirrors.fetch(OWNER, NAME)
    host.github.repository(OWNER, NAME).bare.delete("gone")
    commit(host, "moves", "again")
    commit(host, "new")
    await host.mirrors.fetch(OWNER, NAME)
    assert tracked(host) == host.remote()
    assert sorted(tracked(host)) == ["main", "moves", "new"]


async def test_branch_can_become_a_directory_and_back(host: Host) -> None:
    commit(host, "a")
    await host.mirrors.fetch(OWNER, NAME)
    for old, new in (("a", "a/b"), ("a/b", "a")):
        host.github.repository(OWNER, NAME).bare.delete(old)
        commit(host, new)
        await host.mirrors.fetch(OWNER, NAME)
        assert tracked(host) == host.remote()


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\u2029b"])
async def test_branch_names_can_contain_unicode_line_separators(host: Host, name: str) -> None:
    sha = commit(host, name)
    for _ in range(2):
        mirror = await host.mirrors.fetch(OWNER, NAME)
        assert (await host.mirrors.branches(mirror))[name] == sha
    worktree = await host.start("one")
    as_claude(worktree.path, "branch", f"{name}-of-claude")
    await host.start("two")
    old = f"refs/orchestrator/salvage/{name}"
    as_claude(host.mirror_path, "update-ref", old, sha)
    assert await host.expiry.expire(datetime.now(UTC) + timedelta(seconds=1)) == [old]


async def test_rewritten_branch_is_followed(host: Host) -> None:
    commit(host, "branch")
    await host.mirrors.fetch(OWNER, NAME)
    host.github.repository(OWNER, NAME).bare.delete("branch")
    sha = commit(host, "branch", "other history")
    await host.mirrors.fetch(OWNER, NAME)
    assert tracked(host)["branch"] == sha


async def test_only_new_objects_are_transferred(host: Host) -> None:
    host.github.commit(OWNER, NAME, "main", {"big.bin": os.urandom(300_000)}, "Big")
    await host.mirrors.fetch(OWNER, NAME)
    before = sum(file.stat().st_size for file in host.mirror_path.rglob("objects/*/*"))
    commit(host, "main")
    await host.mirrors.fetch(OWNER, NAME)
    after = sum(file.stat().st_size for file in host.mirror_path.rglob("objects/*/*"))
    assert before > 300_000
    assert 0 < after - before < 10_000


async def test_names_that_differ_in_case_share_a_mirror(host: Host) -> None:
    first = await host.mirrors.fetch(OWNER.upper(), NAME.lower())
    second = await host.mirrors.fetch(OWNER.lower(), NAME.upper())
    assert first.path == second.path


def test_path_contains_server_owner_and_name(host: Host) -> None:
    server = host.github.url.removeprefix("http://").replace(":", "_")
    assert host.mirror_path == host.mirrors.root / server / "acme" / "shop.git"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b"])
def test_names_outside_the_directory_are_refused(host: Host, name: str) -> None:
    with pytest.raises(InvalidRequest):
        host.mirrors.path(OWNER, name)
    with pytest.raises(InvalidRequest):
        host.mirrors.path(name, NAME)


async def test_empty_repository_is_refused(host: Host) -> None:
    host.github.create_repository(OWNER, "Empty", {})
    with pytest.raises(JobFailure) as caught:
        await host.mirrors.fetch(OWNER, "Empty")
    assert caught.value.code is FailureCode.REPOSITORY_EMPTY
    host.github.commit(OWNER, "Empty", "main", {"a": "b"}, "First")
    mirror = await host.mirrors.fetch(OWNER, "Empty")
    assert list(await host.mirrors.branches(mirror)) == ["main"]


async def test_incomplete_mirror_is_never_visible(host: Host) -> None:
    host.github.delay_next("git-upload-pack", 30)
    fetching = asyncio.create_task(host.mirrors.fetch(OWNER, NAME))
    await until(lambda: not host.github.pending_faults)
    assert list(host.mirrors.scratch.glob("mirror-*/config"))
    assert not host.mirror_path.exists()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not list(host.mirrors.scratch.iterdir())
    await host.mirrors.fetch(OWNER, NAME)
    assert tracked(host) == host.remote()


async def test_changed_configuration_is_restored(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    wanted = (mirror.path / "config").read_text()
    for key in ("remote.origin.url", "credential.helper", "core.fsmonitor", "core.worktree"):
        as_claude(mirror.path, "config", key, "/evil")
    for name in ("info/attributes", "info/grafts", "objects/info/alternates", "hooks/pre-push"):
        (mirror.path / name).parent.mkdir(exist_ok=True)
        (mirror.path / name).write_text("evil\n")
    await host.mirrors.fetch(OWNER, NAME)
    assert (mirror.path / "config").read_text() == wanted
    left = [
        file for file in mirror.path.rglob("*") if file.is_file() and b"evil" in file.read_bytes()
    ]
    assert not left
    assert as_claude(mirror.path, "config", "remote.origin.url") == mirror.url


async def test_configuration_symlink_is_replaced(host: Host, tmp_path: Path) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    config, victim = mirror.path / "config", tmp_path / "victim"
    victim.write_text(config.read_text())
    config.unlink()
    config.symlink_to(victim)
    await host.mirrors.fetch(OWNER, NAME)
    assert not config.is_symlink()


async def test_stale_locks_are_removed(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    sha = commit(host, "main")
    locks = [mirror.path / "packed-refs.lock", mirror.path / f"{TRACKING}main.lock"]
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    with pytest.raises(JobFailure) as caught:
        await host.mirrors.fetch(OWNER, NAME)
    assert caught.value.transient
    for lock in locks:
        os.utime(lock, (time.time() - 61, time.time() - 61))
    await host.mirrors.fetch(OWNER, NAME)
    assert tracked(host)["main"] == sha


async def test_stale_temporary_objects_are_removed(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    young = {"ab/tmp_obj_1": 0, "pack/tmp_pack_1": 1800}
    old = {"ab/tmp_obj_2": 61, "pack/tmp_pack_2": 3601, "pack/tmp_idx_1": 3601}
    for name, age in {**young, **old}.items():
        file = mirror.objects / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - age, time.time() - age))
    await host.mirrors.fetch(OWNER, NAME)
    assert [name for name in (*young, *old) if (mirror.objects / name).exists()] == [*young]


def damage(host: Host) -> None:
    """Empty all object files, as a full disk or a power cut does."""
    for file in host.mirror_path.glob("objects/*/*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"")


async def test_damaged_mirror_is_replaced(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    damage(host)
    commit(host, "main")
    await host.mirrors.fetch(OWNER, NAME)
    assert tracked(host) == host.remote()
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    assert len(list((host.mirrors.root / ".damaged").glob("*/shop.git"))) == 1


async def test_mirror_without_head_is_replaced(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    (host.mirror_path / "HEAD").unlink()
    await host.mirrors.fetch(OWNER, NAME)
    assert tracked(host) == host.remote()


async def test_kept_work_moves_to_the_new_mirror(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "edit").write_text("work")
    kept = await host.removal.remove(OWNER, NAME, "job")
    (host.mirror_path / f"{TRACKING}main").write_text("0" * 39 + "1\n")
    await host.mirrors.fetch(OWNER, NAME)
    assert list((host.mirrors.root / ".damaged").glob("*/shop.git"))
    assert await host.salvage.kept(OWNER, NAME, "job") == kept
    assert "+work" in (await host.patch() or "")


async def test_server_error_does_not_replace_the_mirror(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    host.github.fail_next("git-upload-pack:refs", 502)
    with pytest.raises(JobFailure):
        await host.mirrors.fetch(OWNER, NAME)
    assert not (host.mirrors.root / ".damaged").exists()


async def test_default_branch_is_read_from_the_remote(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    commit(host, "trunk")
    as_claude(host.github.root / OWNER / f"{NAME}.git", "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert await host.mirrors.default_branch(mirror) == "trunk"
    host.github.fail_next("git-upload-pack*", 502, times=2)
    assert await host.mirrors.default_branch(mirror) == "main"


async def test_renamed_default_branch_is_followed(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    commit(host, "trunk")
    origin = host.github.root / OWNER / f"{NAME}.git"
    as_claude(origin, "symbolic-ref", "HEAD", "refs/heads/trunk")
    as_claude(origin, "update-ref", "-d", "refs/heads/main")
    await host.mirrors.fetch(OWNER, NAME)
    assert as_claude(mirror.path, "symbolic-ref", f"{TRACKING}HEAD") == f"{TRACKING}trunk"


async def test_token_is_read_for_each_command(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    grant = host.github.tokens.pop(TOKEN)
    with pytest.raises(JobFailure):
        await host.mirrors.fetch(OWNER, NAME)
    renewed = "ghs_" + "n3wT0k3n" * 5
    host.github.tokens[renewed] = grant
    assert host.token_file is not None
    host.token_file.write_text(renewed)
    await host.mirrors.fetch(OWNER, NAME)


async def test_failed_command_leaves_no_scratch_repository(host: Host) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    with pytest.raises(GitError):
        await host.mirrors.network.fetch_commit(mirror.url, mirror.objects, "1" * 40)
    assert not list(host.mirrors.scratch.iterdir())
