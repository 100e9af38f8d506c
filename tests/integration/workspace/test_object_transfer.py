"""The transfer of commits and LFS files from a job's repository into the mirror."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Host, as_claude
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


async def test_commits_reach_the_mirror_only_when_published(host: Host) -> None:
    worktree = await host.start("job")
    before = {*host.mirror_path.rglob("*")}
    sha = commit(worktree, "one")
    await host.publishing.commit_all(worktree, "Nothing", CLAUDE)
    assert {*host.mirror_path.rglob("*")} == before
    assert (await host.publishing.head(worktree)).sha == sha
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    assert as_claude(host.mirror_path, "show", f"{sha}:one") == "x"


async def test_existing_objects_are_not_transferred_again(host: Host) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    for _ in range(2):
        await host.publishing.head(worktree)
    assert len(list(host.mirror_path.glob("objects/pack/*.pack"))) == 1
    commit(worktree, "two", os.urandom(50_000).hex())
    commit(worktree, "three")
    await host.publishing.head(worktree)
    sizes = sorted(file.stat().st_size for file in host.mirror_path.glob("objects/pack/*.pack"))
    assert len(sizes) == 2
    assert not list(host.mirrors.scratch.iterdir())


async def test_commit_without_its_files_is_transferred_again(host: Host) -> None:
    """A replaced mirror may have a commit without its files."""
    worktree = await host.start("job")
    sha = commit(worktree, "one")
    target = object_file(host.mirror_path, sha)
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(object_file(worktree.git_dir, sha), target)
    await host.publish(worktree)
    assert host.github.read_file(OWNER, NAME, "feature/job", "one") == "x\n"
    as_claude(host.mirror_path, "fsck", "--full", "--strict")


@pytest.mark.parametrize("revision", ["HEAD^{tree}", "HEAD:one"], ids=["tree", "blob"])
async def test_commit_with_a_missing_object_is_refused(host: Host, revision: str) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    missing = as_claude(worktree.path, "rev-parse", revision)
    object_file(worktree.git_dir, missing).unlink()
    with pytest.raises(JobFailure, match="state that git does not accept") as caught:
        await host.publishing.head(worktree)
    assert not caught.value.transient
    assert not list(host.mirrors.scratch.iterdir())
    assert not (host.mirror_path / "damaged").exists()


async def test_history_hidden_by_a_forged_object_is_refused(host: Host) -> None:
    worktree = await host.start("job")
    hidden, base = commit(worktree, "one"), worktree.base_sha
    commit(worktree, "two")
    target = object_file(host.mirror_path, hidden)
    target.parent.mkdir(exist_ok=True)
    object_file(worktree.git_dir, hidden).replace(target)
    shutil.copyfile(object_file(host.mirror_path, base), object_file(worktree.git_dir, hidden))
    with pytest.raises(BrokenRepository):
        await host.publishing.head(worktree)
    assert "feature/job" not in host.remote()


async def test_only_lfs_files_with_matching_content_are_copied(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_draft, drafts = tempfile.mkstemp, 0

    def counted(**options: Any) -> tuple[int, str]:
        nonlocal drafts
        drafts += 1
        return make_draft(**options)

    monkeypatch.setattr(tempfile, "mkstemp", counted)
    worktree = await host.start("job")
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
        await host.publishing.head(worktree)
    found = {file.name: file for file in host.mirror_path.glob("lfs/objects/*/*/*")}
    assert {name: file.read_bytes() for name, file in found.items()} == wanted
    assert {file.stat().st_nlink for file in found.values()} == {1}
    assert drafts == len(wanted)


@pytest.mark.parametrize("sha", ["", "--exec=evil", "HEAD", "1" * 39, "1" * 40 + "\n^main"])
async def test_invalid_commit_name_is_refused(host: Host, sha: str) -> None:
    """A job could forge the output of a contained command."""
    worktree = await host.start("job")
    with pytest.raises(BrokenRepository, match="not a commit id"):
        await ObjectTransfer(host.mirrors).copy_commit(worktree, sha)
