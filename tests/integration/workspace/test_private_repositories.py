"""Private repositories that a job has damaged or filled with hostile files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude
from workspace.worktree.deletion import delete_tree
from workspace.worktree.worktree import Worktree

SECRET = "secret of another job\n"
HUGE = 1 << 40

SETTINGS = ["config", "commondir", "info/attributes", "objects/info/alternates", "../job/.git"]
REFS = [
    "HEAD", "packed-refs", "refs/heads/feature/job", "refs/stash", "logs/HEAD", "logs/refs/stash",
]  # fmt: skip
STATE = [
    "index", "MERGE_HEAD", "MERGE_AUTOSTASH", "rebase-merge/autostash",
    f"lfs/objects/ab/cd/abcd{'0' * 60}",
]  # fmt: skip
DIRECTORIES = ["objects", "refs", "info", "logs"]
FILES_OF_THE_WORKTREE = [
    "../job/.gitignore", "../job/src/.gitattributes", "../job/app/.git/HEAD",
    "../job/lib/.git/config",
]  # fmt: skip


def pipe(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def huge(place: Path, victim: Path) -> None:
    place.touch()
    os.truncate(place, HUGE)


def directory(place: Path, victim: Path) -> None:
    (place / "inner").mkdir(parents=True)


Put = Callable[[Path, Path], None]
KINDS = [pipe, link, huge, directory]


async def start_with_work(host: Host) -> Worktree:
    """Create a commit and a new file."""
    worktree = await host.start("job")
    (worktree.path / "one").write_text("1\n")
    as_claude(worktree.path, "add", "one")
    as_claude(worktree.path, "commit", "--quiet", "-m", "By Claude")
    (worktree.path / "two").write_text("2\n")
    return worktree


def plant(worktree: Worktree, places: list[str], put: Put, victim: Path) -> None:
    for name in places:
        place = Path(os.path.normpath(worktree.git_dir / name))
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        put(place, victim)


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize(
    "places",
    [SETTINGS, REFS, STATE, DIRECTORIES, FILES_OF_THE_WORKTREE],
    ids=["settings", "refs", "state", "directories", "files of the worktree"],
)
async def test_planted_files_do_not_block_git_or_leak_data(
    host: Host, tmp_path: Path, places: list[str], put: Put
) -> None:
    victim = tmp_path / "victim"
    victim.write_text(SECRET)
    worktree = await start_with_work(host)
    for name in ("app", "lib"):
        as_claude(worktree.path, "init", "--quiet", name)
        (worktree.path / name / "inner").write_text("x")
    plant(worktree, places, put, victim)
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree
    with contextlib.suppress(JobFailure):
        await host.commit(worktree)
    plant(worktree, places, put, victim)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert {"+1", "+2"} <= set((kept.patch or "").splitlines())
    assert SECRET not in (kept.patch or "")
    assert victim.read_text() == SECRET
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    assert not (host.mirror_path / "lfs").exists()


@pytest.mark.parametrize("put", KINDS)
async def test_work_is_published_despite_planted_settings(
    host: Host, tmp_path: Path, put: Put
) -> None:
    worktree = await start_with_work(host)
    plant(worktree, [*SETTINGS[:-1], "index"], put, tmp_path / "nowhere")
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


@pytest.fixture
def delete_deep_directories(host: Host) -> Iterator[None]:
    """Delete the directories if the test fails, because pytest cannot."""
    yield
    delete_tree(host.worktrees.root)


async def test_deeply_nested_directories_are_removed(
    host: Host, delete_deep_directories: None
) -> None:
    worktree = await start_with_work(host)
    (worktree.git_dir / "HEAD").unlink()
    for top in (worktree.path / "deep", worktree.git_dir / "HEAD"):
        top.mkdir()
        nest(top, 1500)
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert "+2" in (kept.patch or "")
    assert not list(host.worktrees.trash.iterdir())


def nest(top: Path, depth: int) -> None:
    directory = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=directory)
        inner = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)


def no_objects(worktree: Worktree) -> None:
    shutil.rmtree(worktree.git_dir / "objects")


def empty_objects(worktree: Worktree) -> None:
    for file in worktree.git_dir.glob("objects/??/*"):
        file.chmod(0o600)
        file.write_bytes(b"")


def no_trees(worktree: Worktree) -> None:
    for name in ("HEAD", "HEAD~1"):
        tree = as_claude(worktree.path, "rev-parse", f"{name}^{{tree}}")
        (worktree.git_dir / "objects" / tree[:2] / tree[2:]).unlink(missing_ok=True)


def no_parents(worktree: Worktree) -> None:
    parent = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "commit", "--quiet", "--allow-empty", "-m", "Another")
    (worktree.git_dir / "objects" / parent[:2] / parent[2:]).unlink()


def lying_object(worktree: Worktree) -> None:
    """Replace the content of a commit by another commit."""
    head, base = (as_claude(worktree.path, "rev-parse", name) for name in ("HEAD", "HEAD~1"))
    file = worktree.git_dir / "objects" / head[:2] / head[2:]
    file.unlink()
    shutil.copyfile(worktree.mirror / "objects" / base[:2] / base[2:], file)


def garbage_refs(worktree: Worktree) -> None:
    (worktree.git_dir / "refs/heads/feature/job").write_bytes(b"\0" * 41)
    (worktree.git_dir / "packed-refs").write_bytes(b"\0\xff" * 100)


def bad_shallow_pack(worktree: Worktree) -> None:
    pack = worktree.git_dir / "objects/pack/pack-x.pack"
    pack.write_bytes(b"PACK" + b"\0" * 100)
    pack.with_suffix(".idx").write_bytes(b"\xfftOc" + b"\0" * 2000)


def dot_git_in_a_tree(worktree: Worktree) -> None:
    """Commit a path that git refuses to check out, and servers refuse."""
    blob = as_claude(worktree.path, "rev-parse", "HEAD:one")
    tree = as_claude_with(worktree.path, f"100644 blob {blob}\t.git\n", "mktree")
    commit_tree(worktree, tree)


def garbage_tree(worktree: Worktree) -> None:
    write = ("hash-object", "--literally", "-w", "-t", "tree", "--stdin")
    tree = as_claude_with(worktree.path, "garbage", *write)
    text = as_claude(worktree.path, "cat-file", "commit", "HEAD")
    first, _, rest = text.partition("\n")
    assert first.startswith("tree ")
    write = ("hash-object", "--literally", "-w", "-t", "commit", "--stdin")
    commit = as_claude_with(worktree.path, f"tree {tree}\n{rest}\n", *write)
    as_claude(worktree.path, "update-ref", "refs/heads/feature/job", commit)


def commit_tree(worktree: Worktree, tree: str) -> None:
    commit = as_claude(worktree.path, "commit-tree", "-p", "HEAD", "-m", "Malformed", tree)
    as_claude(worktree.path, "update-ref", "refs/heads/feature/job", commit)


def as_claude_with(directory: Path, text: str, *arguments: str) -> str:
    """Run git with `text` as its input."""
    (directory / "stdin").write_text(text)
    command = "git " + " ".join(arguments) + " < stdin; rm stdin"
    return as_claude(directory, "-c", f"alias.x=!{command}", "x")


BROKEN = [
    no_objects, empty_objects, no_trees, no_parents, lying_object, garbage_refs, bad_shallow_pack,
]  # fmt: skip
MALFORMED = [dot_git_in_a_tree, garbage_tree]


@pytest.mark.parametrize("damage", BROKEN + MALFORMED)
async def test_broken_repository_keeps_its_files_and_affects_no_other_job(
    host: Host, damage: Callable[[Worktree], None]
) -> None:
    neighbour = await host.start("neighbour")
    worktree = await start_with_work(host)
    damage(worktree)
    with contextlib.suppress(JobFailure):
        await host.publish(worktree)
    kept = await host.removal.remove(OWNER, NAME, "job")
    if "feature/job" not in host.remote():
        assert kept is not None
        assert {"+1", "+2"} <= set((kept.patch or "").splitlines())
    assert not (host.mirror_path / "damaged").exists()
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    await host.mirrors.fetch(OWNER, NAME)
    assert not host.mirrors.damaged.exists()
    (neighbour.path / "three").write_text("3\n")
    await host.publish(neighbour)


@pytest.mark.parametrize("malform", MALFORMED)
async def test_malformed_objects_do_not_reach_the_mirror(
    host: Host, malform: Callable[[Worktree], None]
) -> None:
    worktree = await start_with_work(host)
    malform(worktree)
    head = as_claude(worktree.path, "rev-parse", "HEAD")
    with pytest.raises(JobFailure, match="git does not accept") as caught:
        await host.publishing.head(worktree)
    assert caught.value.code is FailureCode.GIT_FAILED
    assert not caught.value.transient
    assert not await host.mirrors.has_commit(host.mirrors.mirror(OWNER, NAME), head)
    assert "feature/job" not in host.remote()
    assert (worktree.path / "two").read_text() == "2\n"
    await host.removal.remove(OWNER, NAME, "job")
    [repository] = host.worktrees.orphaned.iterdir()
    assert as_claude(repository, "rev-parse", "feature/job") == head


async def test_broken_repository_is_moved_aside_with_its_commits(host: Host) -> None:
    worktree = await start_with_work(host)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "commit", "--quiet", "--allow-empty", "-m", "Lost")
    lost = as_claude(worktree.path, "rev-parse", "HEAD^{tree}")
    (worktree.path / "three").write_text("3")
    as_claude(worktree.path, "add", "three")
    as_claude(worktree.path, "commit", "--quiet", "-m", "Half lost")
    tree = as_claude(worktree.path, "rev-parse", "HEAD^{tree}")
    assert tree != lost
    (worktree.git_dir / "objects" / tree[:2] / tree[2:]).unlink()
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert {"+1", "+2", "+3"} <= set((kept.patch or "").splitlines())
    [repository] = host.worktrees.orphaned.iterdir()
    assert as_claude(repository, "log", "-1", "--format=%s", by_claude) == "By Claude"


async def test_damaged_mirror_is_not_blamed_on_the_job(host: Host) -> None:
    worktree = await start_with_work(host)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    tree = as_claude(worktree.path, "rev-parse", f"{worktree.base_sha}^{{tree}}")
    (host.mirror_path / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(JobFailure, match="mirror of Acme/Shop on this host is damaged"):
        await host.removal.remove(OWNER, NAME, "job")
    assert not host.worktrees.orphaned.exists()
    await host.mirrors.fetch(OWNER, NAME)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(host.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude


async def test_damage_to_another_branch_of_the_mirror_is_not_blamed_on_the_job(host: Host) -> None:
    theirs = host.github.commit(OWNER, NAME, "theirs", {"theirs": "x"}, "Theirs")
    worktree = await start_with_work(host)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "branch", "idea")
    (host.mirror_path / "objects" / theirs[:2] / theirs[2:]).unlink()
    with pytest.raises(JobFailure, match="mirror of Acme/Shop on this host is damaged"):
        await host.removal.remove(OWNER, NAME, "job")
    await host.mirrors.fetch(OWNER, NAME)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(host.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude


async def test_job_continues_after_its_mirror_was_deleted(host: Host) -> None:
    worktree = await start_with_work(host)
    shutil.rmtree(host.mirror_path)
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


async def test_work_is_kept_after_the_mirror_was_deleted(host: Host) -> None:
    worktree = await start_with_work(host)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    shutil.rmtree(host.mirror_path)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(host.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude


async def test_deleted_mirror_that_cannot_be_fetched_stops_the_removal(host: Host) -> None:
    worktree = await start_with_work(host)
    shutil.rmtree(host.mirror_path)
    host.github.fail_next("*", 503, times=9)
    with pytest.raises(JobFailure) as caught:
        await host.removal.remove(OWNER, NAME, "job")
    assert caught.value.code is FailureCode.GITHUB_UNAVAILABLE
    assert (worktree.path / "two").read_text() == "2\n"
    assert as_claude(worktree.path, "branch", "--show-current") == "feature/job"


async def test_mirror_deleted_during_a_command_is_a_job_failure(host: Host) -> None:
    await host.start("job")
    mirror = host.mirrors.mirror(OWNER, NAME)

    async def remove() -> None:
        with host.mirrors.as_job_failures(mirror, "Looking"):
            shutil.rmtree(mirror.path / "objects")
            try:
                await host.git.run("log", "refs/remotes/origin/main", at=mirror.place)
            finally:
                shutil.rmtree(mirror.path)

    with pytest.raises(JobFailure) as caught:
        await asyncio.gather(remove())
    assert caught.value.code is FailureCode.GIT_FAILED


async def test_objects_of_another_repository_are_not_published(host: Host, tmp_path: Path) -> None:
    """The objects of the commit are only in the other repository."""
    other = tmp_path / "other"
    as_claude(tmp_path, "clone", "--quiet", str(host.github.root / OWNER / f"{NAME}.git"), "other")
    (other / "stolen").write_text(SECRET)
    as_claude(other, "add", "stolen")
    as_claude(other, "commit", "--quiet", "-m", "Not yours")
    stolen = as_claude(other, "rev-parse", "HEAD")
    worktree = await start_with_work(host)
    alternates = worktree.git_dir / "objects/info/alternates"
    alternates.write_text(f"{alternates.read_text()}{other}/.git/objects\n")
    as_claude(worktree.path, "merge", "--quiet", "-m", "Take it", stolen)
    with pytest.raises(JobFailure):
        await host.publish(worktree)
    assert "feature/job" not in host.remote()
    assert not await host.mirrors.has_commit(host.mirrors.mirror(OWNER, NAME), stolen)
