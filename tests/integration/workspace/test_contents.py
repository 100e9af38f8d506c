from __future__ import annotations

import shutil

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, REGISTERED, Room, as_claude

PART = {"part.py": "part\n"}


def add_submodule(
    room: Room, url: str, path: str = "libs/part", *, to: str = NAME, part: str = "Part"
) -> str:
    """Point a path of a repository's main branch to another's head, and return that commit."""
    scratch = room.directory / "author"
    shutil.rmtree(scratch, ignore_errors=True)
    origin = room.forge.root / OWNER / f"{to}.git"
    as_claude(room.directory, "clone", "--quiet", str(origin), str(scratch))
    head = room.forge.branches(OWNER, part)["main"]
    as_claude(scratch, "update-index", "--add", "--cacheinfo", f"160000,{head},{path}")
    as_claude(scratch, "config", "-f", ".gitmodules", f"submodule.{path}.path", path)
    as_claude(scratch, "config", "-f", ".gitmodules", f"submodule.{path}.url", url)
    as_claude(scratch, "add", ".gitmodules")
    as_claude(scratch, "commit", "-m", "Add a submodule")
    as_claude(scratch, "push", "--quiet", "origin", "main")
    return head


@pytest.mark.parametrize(
    "address", ["{url}/Acme/Part.git", "../Part.git", "git@127.0.0.1:Acme/Part"]
)
async def test_a_submodule_of_the_same_server_is_checked_out(room: Room, address: str) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    part = add_submodule(room, address.format(url=room.forge.url))
    worktree = await room.start("job")
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/part.py").read_text() == "part\n"
    assert as_claude(worktree.path, "submodule", "status").split()[0] == part
    assert await room.worktrees.changed_paths(worktree) == []


async def test_a_worktree_with_a_submodule_is_published_and_removed(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    await room.publish(worktree)
    head = await room.publishing.head(worktree)
    assert (head.commits_ahead, head.files_changed) == (1, 1)
    await room.removal.remove(OWNER, NAME, "job")
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    await room.start("job2", "feature/x")


async def test_parallel_jobs_get_their_submodules(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    for job_id in ("job1", "job2"):
        worktree = await room.start(job_id)
        assert (worktree.path / "libs/part/part.py").exists()


async def test_a_submodule_that_is_not_there_is_noticed_but_does_not_stop_the_job(
    room: Room,
) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Secret.git")
    worktree = await room.start("job")
    [notice] = worktree.notices
    assert "submodules are missing" in notice
    assert "register the repositories of private submodules" in notice
    assert (worktree.path / "README.md").exists()
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree


async def test_a_submodule_whose_server_is_in_trouble_is_tried_again(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.fail_next("/Acme/Part.git/*", 502, times=9)
    with pytest.raises(JobFailure) as caught:
        await room.start("job")
    assert caught.value.transient
    room.forge.clear_faults()
    worktree = await room.start("job")
    assert (worktree.path / "libs/part/part.py").exists()


async def test_a_submodule_on_this_machine_is_not_read(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, str(room.forge.root / OWNER / "Part.git"))
    worktree = await room.start("job")
    assert "submodules are missing" in worktree.notices[0]
    assert not (worktree.path / "libs/part/part.py").exists()


async def test_submodules_of_submodules_are_checked_out(room: Room) -> None:
    for name in ("Part", "Bolt"):
        room.forge.create_repository(OWNER, name, {f"{name}.py": f"{name}\n"})
    add_submodule(room, "../Bolt.git", "bolt", to="Part", part="Bolt")
    add_submodule(room, "../Part.git")
    worktree = await room.start("job")
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/bolt/Bolt.py").read_text() == "Bolt\n"
    assert await room.worktrees.changed_paths(worktree) == []
    assert await room.removal.remove(OWNER, NAME, "job") is None


async def test_a_later_job_gets_the_submodule_where_it_is_now(room: Room) -> None:
    for name in ("Part", "Other"):
        room.forge.create_repository(OWNER, name, PART)
    add_submodule(room, "../Part.git")
    await room.start("before")
    room.forge.commit(OWNER, "Part", "main", {"part.py": "newer\n"}, "Newer")
    add_submodule(room, "../Part.git")
    newer = await room.start("newer")
    assert (newer.path / "libs/part/part.py").read_text() == "newer\n"
    room.forge.commit(OWNER, "Other", "main", {"part.py": "elsewhere\n"}, "Elsewhere")
    add_submodule(room, "../Other.git", part="Other")
    elsewhere = await room.start("elsewhere")
    assert (elsewhere.path / "libs/part/part.py").read_text() == "elsewhere\n"
    assert (newer.path / "libs/part/part.py").read_text() == "newer\n"
    assert [worktree.notices for worktree in (newer, elsewhere)] == [(), ()]


async def test_kept_work_with_a_submodule_is_taken_up(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    worktree = await room.start("job")
    newer = room.forge.commit(OWNER, "Part", "main", {"part.py": "newer\n"}, "Newer")
    part = room.forge.root / OWNER / "Part.git"
    as_claude(worktree.path / "libs/part", "fetch", "--quiet", str(part), "main")
    as_claude(worktree.path / "libs/part", "checkout", "--quiet", newer)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    again = await room.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch, REGISTERED
    )
    assert (again.path / "libs/part/part.py").read_text() == "newer\n"
    sha = await room.publish(again)
    assert as_claude(room.mirror_path, "rev-parse", f"{sha}:libs/part") == newer
