from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.errors import InvalidRequest, JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import NAME, OWNER, TOKEN, Room, as_claude, until
from workspace.git.runner import GitError

TRACKING = "refs/remotes/origin/"


def tracked(room: Room) -> dict[str, str]:
    printed = as_claude(
        room.mirror_path, "for-each-ref", "--format=%(objectname) %(refname)", TRACKING
    )
    rows = (line.split(" ", 1) for line in printed.split("\n") if line)
    return {name.removeprefix(TRACKING): sha for sha, name in rows if not name.endswith("/HEAD")}


def commit(room: Room, branch: str, text: str = "x") -> str:
    return room.forge.commit(OWNER, NAME, branch, {"file.txt": text}, f"On {branch}")


async def test_a_mirror_has_every_branch_and_the_default_one(room: Room) -> None:
    commit(room, "other/main")
    mirror = await room.mirrors.fetch(OWNER, NAME)
    assert mirror.path == room.mirror_path
    assert tracked(room) == room.remote() == await room.mirrors.branches(mirror)
    assert as_claude(mirror.path, "symbolic-ref", f"{TRACKING}HEAD") == f"{TRACKING}main"
    assert as_claude(mirror.path, "for-each-ref", "refs/heads") == ""


async def test_fetching_again_follows_the_remote(room: Room) -> None:
    commit(room, "gone")
    commit(room, "moves")
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.repository(OWNER, NAME).bare.delete("gone")
    commit(room, "moves", "again")
    commit(room, "new")
    await room.mirrors.fetch(OWNER, NAME)
    assert tracked(room) == room.remote()
    assert sorted(tracked(room)) == ["main", "moves", "new"]


async def test_a_branch_may_become_a_directory_and_back(room: Room) -> None:
    commit(room, "a")
    await room.mirrors.fetch(OWNER, NAME)
    for old, new in (("a", "a/b"), ("a/b", "a")):
        room.forge.repository(OWNER, NAME).bare.delete(old)
        commit(room, new)
        await room.mirrors.fetch(OWNER, NAME)
        assert tracked(room) == room.remote()


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\u2029b"])
async def test_names_may_have_what_ends_a_line_elsewhere(room: Room, name: str) -> None:
    sha = commit(room, name)
    for _ in range(2):
        mirror = await room.mirrors.fetch(OWNER, NAME)
        assert (await room.mirrors.branches(mirror))[name] == sha
    worktree = await room.start("one")
    as_claude(worktree.path, "branch", f"{name}-of-claude")
    await room.start("two")
    old = f"refs/orchestrator/salvage/{name}"
    as_claude(room.mirror_path, "update-ref", old, sha)
    assert await room.expiry.expire(datetime.now(UTC) + timedelta(seconds=1)) == [old]


async def test_a_rewritten_branch_is_followed(room: Room) -> None:
    commit(room, "branch")
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.repository(OWNER, NAME).bare.delete("branch")
    sha = commit(room, "branch", "other history")
    await room.mirrors.fetch(OWNER, NAME)
    assert tracked(room)["branch"] == sha


async def test_only_what_is_new_is_transferred(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "main", {"big.bin": os.urandom(300_000)}, "Big")
    await room.mirrors.fetch(OWNER, NAME)
    before = sum(file.stat().st_size for file in room.mirror_path.rglob("objects/*/*"))
    commit(room, "main")
    await room.mirrors.fetch(OWNER, NAME)
    after = sum(file.stat().st_size for file in room.mirror_path.rglob("objects/*/*"))
    assert before > 300_000
    assert 0 < after - before < 10_000


async def test_names_that_differ_in_case_share_a_mirror(room: Room) -> None:
    first = await room.mirrors.fetch(OWNER.upper(), NAME.lower())
    second = await room.mirrors.fetch(OWNER.lower(), NAME.upper())
    assert first.path == second.path


def test_the_path_has_host_owner_and_name(room: Room) -> None:
    host = room.forge.url.removeprefix("http://").replace(":", "_")
    assert room.mirror_path == room.mirrors.root / host / "acme" / "shop.git"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b"])
def test_names_that_would_leave_the_directory_are_refused(room: Room, name: str) -> None:
    with pytest.raises(InvalidRequest):
        room.mirrors.path(OWNER, name)
    with pytest.raises(InvalidRequest):
        room.mirrors.path(name, NAME)


async def test_an_empty_repository_is_refused(room: Room) -> None:
    room.forge.create_repository(OWNER, "Empty", {})
    with pytest.raises(JobFailure) as caught:
        await room.mirrors.fetch(OWNER, "Empty")
    assert caught.value.code is FailureCode.REPOSITORY_EMPTY
    room.forge.commit(OWNER, "Empty", "main", {"a": "b"}, "First")
    mirror = await room.mirrors.fetch(OWNER, "Empty")
    assert list(await room.mirrors.branches(mirror)) == ["main"]


async def test_a_half_made_mirror_is_never_seen(room: Room) -> None:
    room.forge.delay_next("git-upload-pack", 30)
    fetching = asyncio.create_task(room.mirrors.fetch(OWNER, NAME))
    await until(lambda: not room.forge.pending_faults)
    assert list(room.mirrors.scratch.glob("mirror-*/config"))
    assert not room.mirror_path.exists()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not list(room.mirrors.scratch.iterdir())
    await room.mirrors.fetch(OWNER, NAME)
    assert tracked(room) == room.remote()


async def test_what_a_job_did_to_the_configuration_is_undone(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    wanted = (mirror.path / "config").read_text()
    for key in ("remote.origin.url", "credential.helper", "core.fsmonitor", "core.worktree"):
        as_claude(mirror.path, "config", key, "/evil")
    for name in ("info/attributes", "info/grafts", "objects/info/alternates", "hooks/pre-push"):
        (mirror.path / name).parent.mkdir(exist_ok=True)
        (mirror.path / name).write_text("evil\n")
    await room.mirrors.fetch(OWNER, NAME)
    assert (mirror.path / "config").read_text() == wanted
    left = [
        file for file in mirror.path.rglob("*") if file.is_file() and b"evil" in file.read_bytes()
    ]
    assert not left
    assert as_claude(mirror.path, "config", "remote.origin.url") == mirror.url


async def test_a_configuration_that_is_a_link_is_replaced_not_followed(
    room: Room, tmp_path: Path
) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    config, victim = mirror.path / "config", tmp_path / "victim"
    victim.write_text(config.read_text())
    config.unlink()
    config.symlink_to(victim)
    await room.mirrors.fetch(OWNER, NAME)
    assert not config.is_symlink()


async def test_locks_of_killed_commands_are_removed_in_time(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    sha = commit(room, "main")
    locks = [mirror.path / "packed-refs.lock", mirror.path / f"{TRACKING}main.lock"]
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    with pytest.raises(JobFailure) as caught:
        await room.mirrors.fetch(OWNER, NAME)
    assert caught.value.transient
    for lock in locks:
        os.utime(lock, (time.time() - 61, time.time() - 61))
    await room.mirrors.fetch(OWNER, NAME)
    assert tracked(room)["main"] == sha


async def test_half_written_objects_are_removed_in_time(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    young = {"ab/tmp_obj_1": 0, "pack/tmp_pack_1": 1800}
    old = {"ab/tmp_obj_2": 61, "pack/tmp_pack_2": 3601, "pack/tmp_idx_1": 3601}
    for name, age in {**young, **old}.items():
        file = mirror.objects / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - age, time.time() - age))
    await room.mirrors.fetch(OWNER, NAME)
    assert [name for name in (*young, *old) if (mirror.objects / name).exists()] == [*young]


def damage(room: Room) -> None:
    """Empty every object file, as a full disk or a power cut does."""
    for file in room.mirror_path.glob("objects/*/*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"")


async def test_a_damaged_mirror_is_made_again(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    damage(room)
    commit(room, "main")
    await room.mirrors.fetch(OWNER, NAME)
    assert tracked(room) == room.remote()
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    assert len(list((room.mirrors.root / ".damaged").glob("*/shop.git"))) == 1


async def test_a_mirror_that_is_no_repository_any_more_is_made_again(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    (room.mirror_path / "HEAD").unlink()
    await room.mirrors.fetch(OWNER, NAME)
    assert tracked(room) == room.remote()


async def test_kept_work_moves_to_the_new_mirror(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "edit").write_text("work")
    kept = await room.removal.remove(OWNER, NAME, "job")
    (room.mirror_path / f"{TRACKING}main").write_text("0" * 39 + "1\n")
    await room.mirrors.fetch(OWNER, NAME)
    assert list((room.mirrors.root / ".damaged").glob("*/shop.git"))
    assert await room.salvage.kept(OWNER, NAME, "job") == kept
    assert "+work" in (await room.patch() or "")


async def test_a_server_in_trouble_is_no_reason_to_make_the_mirror_again(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.fail_next("git-upload-pack:refs", 502)
    with pytest.raises(JobFailure):
        await room.mirrors.fetch(OWNER, NAME)
    assert not (room.mirrors.root / ".damaged").exists()


async def test_the_default_branch_is_asked_for(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    commit(room, "trunk")
    as_claude(room.forge.root / OWNER / f"{NAME}.git", "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert await room.mirrors.default_branch(mirror) == "trunk"
    room.forge.fail_next("git-upload-pack*", 502, times=2)
    assert await room.mirrors.default_branch(mirror) == "main"


async def test_a_default_branch_that_was_renamed_is_followed(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    commit(room, "trunk")
    origin = room.forge.root / OWNER / f"{NAME}.git"
    as_claude(origin, "symbolic-ref", "HEAD", "refs/heads/trunk")
    as_claude(origin, "update-ref", "-d", "refs/heads/main")
    await room.mirrors.fetch(OWNER, NAME)
    assert as_claude(mirror.path, "symbolic-ref", f"{TRACKING}HEAD") == f"{TRACKING}trunk"


async def test_the_token_is_read_anew_for_every_command(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    grant = room.forge.tokens.pop(TOKEN)
    with pytest.raises(JobFailure):
        await room.mirrors.fetch(OWNER, NAME)
    renewed = "ghs_" + "n3wT0k3n" * 5
    room.forge.tokens[renewed] = grant
    assert room.token_file is not None
    room.token_file.write_text(renewed)
    await room.mirrors.fetch(OWNER, NAME)


async def test_git_is_told_of_trouble_with_a_scratch_repository(room: Room) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    with pytest.raises(GitError):
        await room.mirrors.network.fetch_commit(mirror.url, mirror.objects, "1" * 40)
    assert not list(room.mirrors.scratch.iterdir())
