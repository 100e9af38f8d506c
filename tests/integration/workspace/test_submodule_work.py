"""Work in submodules, which commits of the worktree cannot contain."""

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
from tests.integration.workspace.conftest import NAME, OWNER, REGISTERED, Host, as_claude
from tests.integration.workspace.test_submodule_checkout import PART, add_submodule
from workspace.inspection.submodule_rescue import RescuedSubmodules
from workspace.worktree.worktree import Worktree


@pytest.fixture
async def worktree(host: Host) -> Worktree:
    """A worktree with a submodule that has a submodule."""
    host.github.create_repository(OWNER, "Bolt", {"bolt.py": "bolt\n"})
    host.github.create_repository(OWNER, "Part", {**PART, ".gitignore": "*.log\n"})
    add_submodule(host, "../Bolt.git", "bolt", to="Part", part="Bolt")
    add_submodule(host, "../Part.git")
    return await host.start("job")


def part_of(worktree: Worktree) -> Path:
    return worktree.path / "libs/part"


def in_git_dir(git_dir: Path, *arguments: str) -> str:
    return as_claude(git_dir, "--git-dir=.", "--work-tree=.", *arguments)


def edited(worktree: Worktree) -> dict[Path, str]:
    """Return the content of the changed files in the submodule."""
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
    host: Host, worktree: Worktree, work: Callable[[Worktree], None]
) -> None:
    work(worktree)
    with pytest.raises(JobFailure, match=r"libs/part.*own repository") as caught:
        await host.commit(worktree)
    assert caught.value.code is FailureCode.GIT_FAILED
    assert await host.worktrees.changed_paths(worktree)
    files = edited(worktree)
    reported: list[RescuedSubmodules] = []

    async def report(job_id: str, rescued: RescuedSubmodules) -> None:
        assert not rescued.files.exists()
        reported.append(rescued)

    await host.removal.remove(OWNER, NAME, "job", report=report)
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    [rescued] = reported
    assert {name: (rescued.files / name).read_text() for name in files} == files
    if work is not lose_the_git_directory:
        in_git_dir(rescued.git_dirs / "libs/part", "rev-parse", "--verify", "HEAD")


async def test_rescued_submodule_contains_its_commits(host: Host, worktree: Worktree) -> None:
    commit(worktree)
    sha = as_claude(part_of(worktree), "rev-parse", "HEAD")
    await host.removal.remove(OWNER, NAME, "job")
    git_dir = host.worktrees.orphaned / "job-submodules.git/libs/part"
    assert in_git_dir(git_dir, "cat-file", "-t", sha) == "commit"
    assert host.github.branches(OWNER, "Part")["main"] != sha


async def test_untouched_submodules_are_published_and_removed(
    host: Host, worktree: Worktree
) -> None:
    (part_of(worktree) / "noise.log").write_text("ignored")
    assert await host.worktrees.changed_paths(worktree) == []
    assert await host.commit(worktree) == worktree.base_sha
    await host.removal.remove(OWNER, NAME, "job")
    assert not host.worktrees.orphaned.exists()


async def test_link_to_another_commit_of_the_remote_is_published(
    host: Host, worktree: Worktree
) -> None:
    newer = host.github.commit(OWNER, "Part", "main", {"part.py": "newer\n"}, "Newer")
    url = f"{host.github.url}/{OWNER}/Part.git"
    part = host.github.root / OWNER / "Part.git"
    as_claude(part_of(worktree), "-c", f"url.{part}.insteadOf={url}", "fetch", "--quiet", "origin")
    as_claude(part_of(worktree), "checkout", "--quiet", "origin/main")
    sha = await host.commit(worktree)
    assert as_claude(host.mirror_path, "rev-parse", f"{sha}:libs/part") == newer
    await host.removal.remove(OWNER, NAME, "job")
    assert not host.worktrees.orphaned.exists()


async def test_submodule_commit_without_a_branch_is_not_work(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, "../Part.git")
    origin = host.github.root / OWNER / "Part.git"
    tree = as_claude(origin, "rev-parse", "main^{tree}")
    other = as_claude(origin, "commit-tree", "-m", "Start again", tree)
    as_claude(origin, "update-ref", "refs/heads/main", other)
    worktree = await host.start("job")
    assert worktree.notices == ()
    (worktree.path / "new").write_text("x")
    assert await host.commit(worktree) != worktree.base_sha


async def test_dirty_checkout_of_a_submodule_is_not_work(host: Host) -> None:
    dirty = {".gitattributes": "*.bat text eol=crlf\n", "run.bat": "one\r\ntwo\r\n"}
    host.github.create_repository(OWNER, "Part", dirty)
    add_submodule(host, "../Part.git")
    worktree = await host.start("job")
    assert await host.worktrees.changed_paths(worktree) == []
    assert await host.commit(worktree) == worktree.base_sha
    (part_of(worktree) / "run.bat").write_text("edited\n")
    assert await host.worktrees.changed_paths(worktree) == ["libs/part"]


async def test_link_to_an_unpushed_commit_is_not_published(host: Host, worktree: Worktree) -> None:
    commit(worktree)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    again = await host.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch, REGISTERED
    )
    with pytest.raises(JobFailure, match=r"libs/part.*own repository"):
        await host.commit(again)


async def test_configuration_of_a_submodule_runs_nothing(host: Host, worktree: Worktree) -> None:
    ran = host.directory / "ran"
    program = host.directory / "program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    program.chmod(0o755)
    (part_of(worktree) / ".gitattributes").write_text("* filter=evil\n")
    for key in ("filter.evil.clean", "filter.evil.process", "core.fsmonitor"):
        as_claude(part_of(worktree), "config", key, str(program))
    os.utime(part_of(worktree) / "part.py", (1, 1))
    ran.unlink(missing_ok=True)
    await host.worktrees.changed_paths(worktree)
    with pytest.raises(JobFailure):
        await host.commit(worktree)
    await host.removal.remove(OWNER, NAME, "job")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["HEAD", "packed-refs", "refs/heads/pipe"])
async def test_endless_files_are_not_read(host: Host, worktree: Worktree, name: str) -> None:
    file = worktree.git_dir / "modules/libs/part" / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    assert await host.worktrees.submodules.paths_with_work(worktree) == ["libs/part"]


def pipe(index: Path) -> None:
    os.mkfifo(index)


def endless(index: Path) -> None:
    index.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [pipe, endless])
async def test_files_are_compared_without_an_endless_index(
    host: Host, worktree: Worktree, put: Callable[[Path], None]
) -> None:
    index = worktree.git_dir / "modules/libs/part/index"
    index.unlink()
    put(index)
    assert await host.worktrees.submodules.paths_with_work(worktree) == []
    add_a_file(worktree)
    assert await host.worktrees.submodules.paths_with_work(worktree) == ["libs/part"]


async def test_symlinked_submodule_is_not_moved(
    host: Host, worktree: Worktree, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    (precious / "part").mkdir(parents=True)
    (precious / "part" / "file").write_text("x")
    shutil.rmtree(worktree.path / "libs")
    (worktree.path / "libs").symlink_to(precious)
    await host.removal.remove(OWNER, NAME, "job")
    assert (precious / "part" / "file").read_text() == "x"


async def test_killed_removal_is_continued(host: Host, worktree: Worktree) -> None:
    edit(worktree)
    rescued = await host.worktrees.submodules_to_rescue(worktree)
    assert rescued is not None
    rescued.git_dirs.parent.mkdir()
    (worktree.git_dir / "modules").rename(rescued.git_dirs)
    await host.removal.remove(OWNER, NAME, "job")
    assert (rescued.files / "libs/part/part.py").read_text() == "edited\n"


async def test_git_directories_are_kept_if_the_files_were_deleted(
    host: Host, worktree: Worktree
) -> None:
    commit(worktree)
    shutil.rmtree(worktree.path)
    sha = in_git_dir(worktree.git_dir / "modules/libs/part", "rev-parse", "HEAD")
    await host.start("job")
    [repository] = host.worktrees.orphaned.glob("job.git-*")
    assert in_git_dir(repository / "modules/libs/part", "rev-parse", "HEAD") == sha


async def test_sweep_rescues_and_reports_submodules(host: Host, worktree: Worktree) -> None:
    edit(worktree)
    reported: dict[str, RescuedSubmodules] = {}

    async def report(job_id: str, rescued: RescuedSubmodules) -> None:
        reported[job_id] = rescued

    async def is_needed(job_id: str) -> bool:
        return False

    assert await host.removal.sweep(is_needed, None, report) == ["job"]
    assert reported["job"].paths == ("libs/part",)
    assert (reported["job"].files / "libs/part/part.py").read_text() == "edited\n"


async def test_rescued_submodules_expire(host: Host, worktree: Worktree) -> None:
    edit(worktree)
    await host.removal.remove(OWNER, NAME, "job")
    aside = [host.worktrees.orphaned / name for name in ("job-submodules", "job-submodules.git")]
    await host.expiry.expire(utc_now() - timedelta(hours=1))
    assert [entry.is_dir() for entry in aside] == [True, True]
    await host.expiry.expire(utc_now() + timedelta(hours=1))
    assert [entry.exists() for entry in aside] == [False, False]
