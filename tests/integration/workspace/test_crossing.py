"""Commits and LFS files on their way from a job's repository into the mirror."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.mirrors.object_transfer import ObjectTransfer
from workspace.worktree.private_repository import BrokenRepository
from workspace.worktree.worktree import Worktree


def commit(worktree: Worktree, name: str, text: str = "x\n") -> str:
    (worktree.path / name).write_text(text)
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "--quiet", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


def object_file(git_dir: Path, sha: str) -> Path:
    return git_dir / "objects" / sha[:2] / sha[2:]


async def test_nothing_is_in_the_mirror_before_it_is_published(room: Room) -> None:
    worktree = await room.start("job")
    before = {*room.mirror_path.rglob("*")}
    sha = commit(worktree, "one")
    await room.publishing.commit_all(worktree, "Nothing", CLAUDE)
    assert {*room.mirror_path.rglob("*")} == before
    assert (await room.publishing.head(worktree)).sha == sha
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    assert as_claude(room.mirror_path, "show", f"{sha}:one") == "x"


async def test_what_is_there_is_not_brought_again(room: Room) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    for _ in range(2):
        await room.publishing.head(worktree)
    assert len(list(room.mirror_path.glob("objects/pack/*.pack"))) == 1
    commit(worktree, "two", os.urandom(50_000).hex())
    commit(worktree, "three")
    await room.publishing.head(worktree)
    sizes = sorted(file.stat().st_size for file in room.mirror_path.glob("objects/pack/*.pack"))
    assert len(sizes) == 2
    assert not list(room.mirrors.scratch.iterdir())


async def test_a_commit_without_its_files_does_not_count_as_there(room: Room) -> None:
    """A damaged mirror that was made again has the sound objects only."""
    worktree = await room.start("job")
    sha = commit(worktree, "one")
    target = object_file(room.mirror_path, sha)
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(object_file(worktree.git_dir, sha), target)
    await room.publish(worktree)
    assert room.forge.read_file(OWNER, NAME, "feature/job", "one") == "x\n"
    as_claude(room.mirror_path, "fsck", "--full", "--strict")


@pytest.mark.parametrize("revision", ["HEAD^{tree}", "HEAD:one"], ids=["tree", "blob"])
async def test_a_commit_that_lacks_something_is_refused(room: Room, revision: str) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    missing = as_claude(worktree.path, "rev-parse", revision)
    object_file(worktree.git_dir, missing).unlink()
    with pytest.raises(JobFailure, match="state that git does not accept") as caught:
        await room.publishing.head(worktree)
    assert not caught.value.transient
    assert not list(room.mirrors.scratch.iterdir())
    assert not (room.mirror_path / "damaged").exists()


async def test_history_that_a_lying_object_hides_is_missed(room: Room) -> None:
    worktree = await room.start("job")
    hidden, base = commit(worktree, "one"), worktree.base_sha
    commit(worktree, "two")
    target = object_file(room.mirror_path, hidden)
    target.parent.mkdir(exist_ok=True)
    object_file(worktree.git_dir, hidden).replace(target)
    shutil.copyfile(object_file(room.mirror_path, base), object_file(worktree.git_dir, hidden))
    with pytest.raises(BrokenRepository):
        await room.publishing.head(worktree)
    assert "feature/job" not in room.remote()


async def test_only_lfs_files_with_the_right_content_are_brought(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_draft, drafts = tempfile.mkstemp, 0

    def counted(**options: Any) -> tuple[int, str]:
        nonlocal drafts
        drafts += 1
        return make_draft(**options)

    monkeypatch.setattr(tempfile, "mkstemp", counted)
    worktree = await room.start("job")
    wanted: dict[str, bytes] = {}
    for content, said in ((b"good", b"good"), (b"bad", b"said"), (b"", b"")):
        oid = hashlib.sha256(said).hexdigest()
        file = worktree.git_dir / "lfs/objects" / oid[:2] / oid[2:4] / oid
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        if content == said:
            wanted[oid] = content
    misplaced = worktree.git_dir / "lfs/objects/aa/bb" / hashlib.sha256(b"good").hexdigest()
    misplaced.parent.mkdir(parents=True)
    misplaced.write_bytes(b"good")
    for _ in range(2):
        await room.publishing.head(worktree)
    found = {file.name: file for file in room.mirror_path.glob("lfs/objects/*/*/*")}
    assert {name: file.read_bytes() for name, file in found.items()} == wanted
    assert {file.stat().st_nlink for file in found.values()} == {1}
    assert drafts == len(wanted)


@pytest.mark.parametrize("sha", ["", "--exec=evil", "HEAD", "1" * 39, "1" * 40 + "\n^main"])
async def test_a_name_that_is_no_commit_s_is_refused(room: Room, sha: str) -> None:
    """What a contained command prints is believed no more than the job itself."""
    worktree = await room.start("job")
    with pytest.raises(BrokenRepository, match="not a commit id"):
        await ObjectTransfer(room.mirrors).copy_commit(worktree, sha)
