"""What a job leaves in its own git repository, and what becomes of its work then."""

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
from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude
from workspace.worktree.deletion import delete_tree
from workspace.worktree.worktree import Worktree

SECRET = "secret of somebody else\n"
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


async def begin(room: Room) -> Worktree:
    """Leave a commit and a new file."""
    worktree = await room.start("job")
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
async def test_odd_files_are_waited_for_by_nobody_and_lead_nowhere(
    room: Room, tmp_path: Path, places: list[str], put: Put
) -> None:
    victim = tmp_path / "victim"
    victim.write_text(SECRET)
    worktree = await begin(room)
    for name in ("app", "lib"):
        as_claude(worktree.path, "init", "--quiet", name)
        (worktree.path / name / "inner").write_text("x")
    plant(worktree, places, put, victim)
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree
    with contextlib.suppress(JobFailure):
        await room.commit(worktree)
    plant(worktree, places, put, victim)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert {"+1", "+2"} <= set((kept.patch or "").splitlines())
    assert SECRET not in (kept.patch or "")
    assert victim.read_text() == SECRET
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    assert not (room.mirror_path / "lfs").exists()


@pytest.mark.parametrize("put", KINDS)
async def test_work_is_published_all_the_same(room: Room, tmp_path: Path, put: Put) -> None:
    worktree = await begin(room)
    plant(worktree, [*SETTINGS[:-1], "index"], put, tmp_path / "nowhere")
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


@pytest.fixture
def shallow_again(room: Room) -> Iterator[None]:
    """Delete what pytest itself cannot, should the test fail."""
    yield
    delete_tree(room.worktrees.root)


async def test_directories_that_are_nested_too_deep_are_no_obstacle(
    room: Room, shallow_again: None
) -> None:
    worktree = await begin(room)
    (worktree.git_dir / "HEAD").unlink()
    for top in (worktree.path / "deep", worktree.git_dir / "HEAD"):
        top.mkdir()
        nest(top, 1500)
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert "+2" in (kept.patch or "")
    assert not list(room.worktrees.trash.iterdir())


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
    """Let a commit have the content of another."""
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
    """Commit what git refuses to check out, and no server takes."""
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
    """Run git with something to read."""
    (directory / "stdin").write_text(text)
    command = "git " + " ".join(arguments) + " < stdin; rm stdin"
    return as_claude(directory, "-c", f"alias.x=!{command}", "x")


BROKEN = [
    no_objects, empty_objects, no_trees, no_parents, lying_object, garbage_refs, bad_shallow_pack,
]  # fmt: skip
MALFORMED = [dot_git_in_a_tree, garbage_tree]


@pytest.mark.parametrize("damage", BROKEN + MALFORMED)
async def test_files_are_kept_and_nobody_else_is_disturbed(
    room: Room, damage: Callable[[Worktree], None]
) -> None:
    neighbour = await room.start("neighbour")
    worktree = await begin(room)
    damage(worktree)
    with contextlib.suppress(JobFailure):
        await room.publish(worktree)
    kept = await room.removal.remove(OWNER, NAME, "job")
    if "feature/job" not in room.remote():
        assert kept is not None
        assert {"+1", "+2"} <= set((kept.patch or "").splitlines())
    assert not (room.mirror_path / "damaged").exists()
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    await room.mirrors.fetch(OWNER, NAME)
    assert not room.mirrors.damaged.exists()
    (neighbour.path / "three").write_text("3\n")
    await room.publish(neighbour)


@pytest.mark.parametrize("malform", MALFORMED)
async def test_malformed_objects_do_not_reach_the_mirror(
    room: Room, malform: Callable[[Worktree], None]
) -> None:
    worktree = await begin(room)
    malform(worktree)
    head = as_claude(worktree.path, "rev-parse", "HEAD")
    with pytest.raises(JobFailure, match="git does not accept") as caught:
        await room.publishing.head(worktree)
    assert caught.value.code is FailureCode.GIT_FAILED
    assert not caught.value.transient
    assert not await room.mirrors.has_commit(room.mirrors.mirror(OWNER, NAME), head)
    assert "feature/job" not in room.remote()
    assert (worktree.path / "two").read_text() == "2\n"
    await room.removal.remove(OWNER, NAME, "job")
    [repository] = room.worktrees.orphaned.iterdir()
    assert as_claude(repository, "rev-parse", "feature/job") == head


async def test_a_broken_repository_is_moved_aside_with_its_commits(room: Room) -> None:
    worktree = await begin(room)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "commit", "--quiet", "--allow-empty", "-m", "Lost")
    lost = as_claude(worktree.path, "rev-parse", "HEAD^{tree}")
    (worktree.path / "three").write_text("3")
    as_claude(worktree.path, "add", "three")
    as_claude(worktree.path, "commit", "--quiet", "-m", "Half lost")
    tree = as_claude(worktree.path, "rev-parse", "HEAD^{tree}")
    assert tree != lost
    (worktree.git_dir / "objects" / tree[:2] / tree[2:]).unlink()
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert {"+1", "+2", "+3"} <= set((kept.patch or "").splitlines())
    [repository] = room.worktrees.orphaned.iterdir()
    assert as_claude(repository, "log", "-1", "--format=%s", by_claude) == "By Claude"


async def test_a_mirror_that_is_damaged_is_not_blamed_on_the_job(room: Room) -> None:
    worktree = await begin(room)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    tree = as_claude(worktree.path, "rev-parse", f"{worktree.base_sha}^{{tree}}")
    (room.mirror_path / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(JobFailure, match="mirror of Acme/Shop on this host is damaged"):
        await room.removal.remove(OWNER, NAME, "job")
    assert not room.worktrees.orphaned.exists()
    await room.mirrors.fetch(OWNER, NAME)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(room.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude


async def test_damage_to_another_branch_of_the_mirror_is_not_blamed_on_the_job(room: Room) -> None:
    theirs = room.forge.commit(OWNER, NAME, "theirs", {"theirs": "x"}, "Theirs")
    worktree = await begin(room)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "branch", "idea")
    (room.mirror_path / "objects" / theirs[:2] / theirs[2:]).unlink()
    with pytest.raises(JobFailure, match="mirror of Acme/Shop on this host is damaged"):
        await room.removal.remove(OWNER, NAME, "job")
    await room.mirrors.fetch(OWNER, NAME)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(room.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude


async def test_a_job_goes_on_without_its_deleted_mirror(room: Room) -> None:
    worktree = await begin(room)
    shutil.rmtree(room.mirror_path)
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Do it", "By Claude", "Initial commit"]


async def test_work_is_kept_although_the_mirror_was_deleted(room: Room) -> None:
    worktree = await begin(room)
    by_claude = as_claude(worktree.path, "rev-parse", "HEAD")
    shutil.rmtree(room.mirror_path)
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert as_claude(room.mirror_path, "rev-parse", f"{kept.head_sha}^") == by_claude


async def test_a_deleted_mirror_that_cannot_be_fetched_stops_the_removal(room: Room) -> None:
    worktree = await begin(room)
    shutil.rmtree(room.mirror_path)
    room.forge.fail_next("*", 503, times=9)
    with pytest.raises(JobFailure) as caught:
        await room.removal.remove(OWNER, NAME, "job")
    assert caught.value.code is FailureCode.GITHUB_UNAVAILABLE
    assert (worktree.path / "two").read_text() == "2\n"
    assert as_claude(worktree.path, "branch", "--show-current") == "feature/job"


async def test_a_mirror_deleted_meanwhile_is_told_as_a_failure(room: Room) -> None:
    await room.start("job")
    mirror = room.mirrors.mirror(OWNER, NAME)

    async def remove() -> None:
        with room.mirrors.as_job_failures(mirror, "Looking"):
            shutil.rmtree(mirror.path / "objects")
            try:
                await room.git.run("log", "refs/remotes/origin/main", at=mirror.place)
            finally:
                shutil.rmtree(mirror.path)

    with pytest.raises(JobFailure) as caught:
        await asyncio.gather(remove())
    assert caught.value.code is FailureCode.GIT_FAILED


async def test_the_objects_of_another_repository_are_not_published(
    room: Room, tmp_path: Path
) -> None:
    """A commit of a neighbour's, whose objects only the neighbour's mirror has."""
    other = tmp_path / "other"
    as_claude(tmp_path, "clone", "--quiet", str(room.forge.root / OWNER / f"{NAME}.git"), "other")
    (other / "stolen").write_text(SECRET)
    as_claude(other, "add", "stolen")
    as_claude(other, "commit", "--quiet", "-m", "Not yours")
    stolen = as_claude(other, "rev-parse", "HEAD")
    worktree = await begin(room)
    alternates = worktree.git_dir / "objects/info/alternates"
    alternates.write_text(f"{alternates.read_text()}{other}/.git/objects\n")
    as_claude(worktree.path, "merge", "--quiet", "-m", "Take it", stolen)
    with pytest.raises(JobFailure):
        await room.publish(worktree)
    assert "feature/job" not in room.remote()
    assert not await room.mirrors.has_commit(room.mirrors.mirror(OWNER, NAME), stolen)
