"""What Claude does inside submodules, which the worktree's own commits cannot contain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.timestamps import utc_now
from tests.integration.workspace.conftest import NAME, OWNER, REGISTERED, Room, as_claude
from tests.integration.workspace.test_contents import PART, add_submodule
from workspace.inspection.submodule_rescue import RescuedSubmodules
from workspace.worktree.worktree import Worktree


@pytest.fixture
async def worktree(room: Room) -> Worktree:
    """A worktree with a submodule that has one of its own."""
    room.forge.create_repository(OWNER, "Bolt", {"bolt.py": "bolt\n"})
    room.forge.create_repository(OWNER, "Part", {**PART, ".gitignore": "*.log\n"})
    add_submodule(room, "../Bolt.git", "bolt", to="Part", part="Bolt")
    add_submodule(room, "../Part.git")
    return await room.start("job")


def part_of(worktree: Worktree) -> Path:
    return worktree.path / "libs/part"


def in_git_dir(git_dir: Path, *arguments: str) -> str:
    return as_claude(git_dir, "--git-dir=.", "--work-tree=.", *arguments)


def edited(worktree: Worktree) -> dict[Path, str]:
    """Return what is in the files of the submodule that are not as they were committed."""
    texts = {
        file.relative_to(worktree.path): file.read_text()
        for file in part_of(worktree).rglob("*.py")
    }
    return {name: text for name, text in texts.items() if text not in {"part\n", "bolt\n"}}


def edit(worktree: Worktree) -> None:
    (part_of(worktree) / "part.py").write_text("edited\n")


def edit_with_the_same_size(worktree: Worktree) -> None:
    (part_of(worktree) / "part.py").write_text("trap\n")


def add_a_file(worktree: Worktree) -> None:
    (part_of(worktree) / "new.py").write_text("new\n")


def commit(worktree: Worktree) -> None:
    edit(worktree)
    as_claude(part_of(worktree), "commit", "--quiet", "-a", "-m", "By Claude")


def commit_on_a_branch_and_go_back(worktree: Worktree) -> None:
    as_claude(part_of(worktree), "checkout", "--quiet", "-b", "idea")
    commit(worktree)
    as_claude(part_of(worktree), "checkout", "--quiet", "--detach", "idea~1")


def stash(worktree: Worktree) -> None:
    edit(worktree)
    as_claude(part_of(worktree), "stash", "--quiet")


def edit_the_inner_one(worktree: Worktree) -> None:
    (part_of(worktree) / "bolt/bolt.py").write_text("edited\n")


def commit_and_take_the_submodule_out(worktree: Worktree) -> None:
    commit(worktree)
    as_claude(worktree.path, "rm", "--quiet", "-f", "libs/part")


def edit_and_take_it_out_of_the_index(worktree: Worktree) -> None:
    edit(worktree)
    as_claude(worktree.path, "rm", "--quiet", "--cached", "libs/part")


def edit_and_damage_the_index(worktree: Worktree) -> None:
    edit(worktree)
    (worktree.git_dir / "modules/libs/part/index").write_text("no index")


def lose_the_git_directory(worktree: Worktree) -> None:
    shutil.rmtree(worktree.git_dir / "modules")


WORK = (
    edit, edit_with_the_same_size, add_a_file, commit, commit_on_a_branch_and_go_back, stash,
    edit_the_inner_one, commit_and_take_the_submodule_out, edit_and_take_it_out_of_the_index,
    edit_and_damage_the_index, lose_the_git_directory,
)  # fmt: skip


@pytest.mark.parametrize("work", WORK)
async def test_work_in_a_submodule_is_not_published_and_not_lost(
    room: Room, worktree: Worktree, work: Callable[[Worktree], None]
) -> None:
    work(worktree)
    with pytest.raises(JobFailure, match=r"libs/part.*own repository") as caught:
        await room.commit(worktree)
    assert caught.value.code is FailureCode.GIT_FAILED
    assert await room.worktrees.changed_paths(worktree)
    files = edited(worktree)
    told: list[RescuedSubmodules] = []

    async def tell(job_id: str, spared: RescuedSubmodules) -> None:
        assert not spared.files.exists()
        told.append(spared)

    await room.removal.remove(OWNER, NAME, "job", report=tell)
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    [spared] = told
    assert {name: (spared.files / name).read_text() for name in files} == files
    if work is not lose_the_git_directory:
        in_git_dir(spared.git_dirs / "libs/part", "rev-parse", "--verify", "HEAD")


async def test_the_commits_are_in_what_is_spared(room: Room, worktree: Worktree) -> None:
    commit(worktree)
    sha = as_claude(part_of(worktree), "rev-parse", "HEAD")
    await room.removal.remove(OWNER, NAME, "job")
    git_dir = room.worktrees.orphaned / "job-submodules.git/libs/part"
    assert in_git_dir(git_dir, "cat-file", "-t", sha) == "commit"
    assert room.forge.branches(OWNER, "Part")["main"] != sha


async def test_submodules_nobody_touched_are_published_and_removed(
    room: Room, worktree: Worktree
) -> None:
    (part_of(worktree) / "noise.log").write_text("ignored")
    assert await room.worktrees.changed_paths(worktree) == []
    assert await room.commit(worktree) == worktree.base_sha
    await room.removal.remove(OWNER, NAME, "job")
    assert not room.worktrees.orphaned.exists()


async def test_a_link_that_moves_to_what_the_remote_has_is_published(
    room: Room, worktree: Worktree
) -> None:
    newer = room.forge.commit(OWNER, "Part", "main", {"part.py": "newer\n"}, "Newer")
    url = f"{room.forge.url}/{OWNER}/Part.git"
    part = room.forge.root / OWNER / "Part.git"
    as_claude(part_of(worktree), "-c", f"url.{part}.insteadOf={url}", "fetch", "--quiet", "origin")
    as_claude(part_of(worktree), "checkout", "--quiet", "origin/main")
    sha = await room.commit(worktree)
    assert as_claude(room.mirror_path, "rev-parse", f"{sha}:libs/part") == newer
    await room.removal.remove(OWNER, NAME, "job")
    assert not room.worktrees.orphaned.exists()


async def test_a_submodule_at_a_commit_no_branch_has_is_no_work(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    origin = room.forge.root / OWNER / "Part.git"
    tree = as_claude(origin, "rev-parse", "main^{tree}")
    other = as_claude(origin, "commit-tree", "-m", "Begin anew", tree)
    as_claude(origin, "update-ref", "refs/heads/main", other)
    worktree = await room.start("job")
    assert worktree.notices == ()
    (worktree.path / "new").write_text("x")
    assert await room.commit(worktree) != worktree.base_sha


async def test_a_submodule_that_is_untidy_when_it_is_made_has_no_work(room: Room) -> None:
    untidy = {".gitattributes": "*.bat text eol=crlf\n", "run.bat": "one\r\ntwo\r\n"}
    room.forge.create_repository(OWNER, "Part", untidy)
    add_submodule(room, "../Part.git")
    worktree = await room.start("job")
    assert await room.worktrees.changed_paths(worktree) == []
    assert await room.commit(worktree) == worktree.base_sha
    (part_of(worktree) / "run.bat").write_text("edited\n")
    assert await room.worktrees.changed_paths(worktree) == ["libs/part"]


async def test_work_that_links_to_a_commit_of_another_machine_is_not_published(
    room: Room, worktree: Worktree
) -> None:
    commit(worktree)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    again = await room.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch, REGISTERED
    )
    with pytest.raises(JobFailure, match=r"libs/part.*own repository"):
        await room.commit(again)


async def test_nothing_of_a_submodule_s_own_configuration_is_run(
    room: Room, worktree: Worktree
) -> None:
    ran = room.directory / "ran"
    program = room.directory / "program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    program.chmod(0o755)
    (part_of(worktree) / ".gitattributes").write_text("* filter=evil\n")
    for key in ("filter.evil.clean", "filter.evil.process", "core.fsmonitor"):
        as_claude(part_of(worktree), "config", key, str(program))
    os.utime(part_of(worktree) / "part.py", (1, 1))
    ran.unlink(missing_ok=True)
    await room.worktrees.changed_paths(worktree)
    with pytest.raises(JobFailure):
        await room.commit(worktree)
    await room.removal.remove(OWNER, NAME, "job")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["HEAD", "packed-refs", "refs/heads/pipe"])
async def test_what_never_ends_is_not_read(room: Room, worktree: Worktree, name: str) -> None:
    file = worktree.git_dir / "modules/libs/part" / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    assert await room.worktrees.submodules.paths_with_work(worktree) == ["libs/part"]


def pipe(index: Path) -> None:
    os.mkfifo(index)


def endless(index: Path) -> None:
    index.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [pipe, endless])
async def test_files_are_compared_without_an_index_that_never_ends(
    room: Room, worktree: Worktree, put: Callable[[Path], None]
) -> None:
    index = worktree.git_dir / "modules/libs/part/index"
    index.unlink()
    put(index)
    assert await room.worktrees.submodules.paths_with_work(worktree) == []
    add_a_file(worktree)
    assert await room.worktrees.submodules.paths_with_work(worktree) == ["libs/part"]


async def test_a_submodule_that_leads_elsewhere_is_not_moved(
    room: Room, worktree: Worktree, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    (precious / "part").mkdir(parents=True)
    (precious / "part" / "file").write_text("x")
    shutil.rmtree(worktree.path / "libs")
    (worktree.path / "libs").symlink_to(precious)
    await room.removal.remove(OWNER, NAME, "job")
    assert (precious / "part" / "file").read_text() == "x"


async def test_a_removal_that_was_killed_between_two_moves_goes_on(
    room: Room, worktree: Worktree
) -> None:
    edit(worktree)
    spared = await room.worktrees.submodules_to_rescue(worktree)
    assert spared is not None
    spared.git_dirs.parent.mkdir()
    (worktree.git_dir / "modules").rename(spared.git_dirs)
    await room.removal.remove(OWNER, NAME, "job")
    assert (spared.files / "libs/part/part.py").read_text() == "edited\n"


async def test_git_directories_outlive_files_that_were_deleted(
    room: Room, worktree: Worktree
) -> None:
    commit(worktree)
    shutil.rmtree(worktree.path)
    sha = in_git_dir(worktree.git_dir / "modules/libs/part", "rev-parse", "HEAD")
    await room.start("job")
    [repository] = room.worktrees.orphaned.glob("job.git-*")
    assert in_git_dir(repository / "modules/libs/part", "rev-parse", "HEAD") == sha


async def test_sweeping_spares_and_tells(room: Room, worktree: Worktree) -> None:
    edit(worktree)
    told: dict[str, RescuedSubmodules] = {}

    async def tell(job_id: str, spared: RescuedSubmodules) -> None:
        told[job_id] = spared

    async def is_needed(job_id: str) -> bool:
        return False

    assert await room.removal.sweep(is_needed, None, tell) == ["job"]
    assert told["job"].paths == ("libs/part",)
    assert (told["job"].files / "libs/part/part.py").read_text() == "edited\n"


async def test_what_was_spared_goes_when_kept_work_does(room: Room, worktree: Worktree) -> None:
    edit(worktree)
    await room.removal.remove(OWNER, NAME, "job")
    aside = [room.worktrees.orphaned / name for name in ("job-submodules", "job-submodules.git")]
    await room.expiry.expire(utc_now() - timedelta(hours=1))
    assert [entry.is_dir() for entry in aside] == [True, True]
    await room.expiry.expire(utc_now() + timedelta(hours=1))
    assert [entry.exists() for entry in aside] == [False, False]
