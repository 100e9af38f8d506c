"""Repositories whose files differ from their commit as soon as they are checked out."""

from __future__ import annotations

import json

import pytest

from tests.integration.workspace import git_lfs
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.worktree.worktree import Worktree, read_record

UNTIDY = {
    "line-ends": ({".gitattributes": "*.bat text eol=crlf\n"}, "run.bat"),
    "no-line-ends": ({".gitattributes": "*.txt text\n"}, "old.txt"),
    "lfs": ({".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n"}, "old.psd"),
}
RAW = "one\r\ntwo\r\n"


@pytest.fixture(params=UNTIDY)
def untidy(request: pytest.FixtureRequest, room: Room) -> str:
    """Give the repository a file that no checkout leaves as it was committed; return its name."""
    attributes, name = UNTIDY[request.param]
    if request.param == "lfs":
        Room.__init__(room, room.directory, room.forge, search_path=git_lfs.search_path())
    room.forge.commit(OWNER, NAME, "main", {**attributes, name: RAW}, "Untidy")
    return name


async def start(room: Room) -> Worktree:
    """Make a worktree of which git says that a file in it is modified.

    git knows times in seconds, and looks into a file only if it is not older than the index. When
    the second ended between the two, it is as if the file were tidy.
    """
    for _ in range(5):
        worktree = await room.start("job")
        if worktree.files_tree is not None:
            return worktree
        await room.removal.remove(OWNER, NAME, "job")
    raise AssertionError("The files are found tidy.")


def changed(room: Room, sha: str, base: str) -> list[str]:
    return as_claude(room.mirror_path, "diff", "--name-only", base, sha).split()


async def test_files_nobody_touched_are_no_change(room: Room, untidy: str) -> None:
    worktree = await start(room)
    assert await room.worktrees.changed_paths(worktree) == []
    (worktree.path / "new").write_text("x")
    (worktree.path / untidy).write_bytes((worktree.path / untidy).read_bytes())
    assert await room.worktrees.changed_paths(worktree) == ["new"]
    (worktree.path / untidy).write_text("edited\n")
    assert await room.worktrees.changed_paths(worktree) == ["new", untidy]


async def test_files_nobody_touched_are_not_committed(room: Room, untidy: str) -> None:
    worktree = await start(room)
    assert await room.commit(worktree) == worktree.base_sha
    (worktree.path / "new").write_text("x")
    (worktree.path / "README.md").unlink()
    sha = await room.commit(worktree)
    assert changed(room, sha, worktree.base_sha) == ["README.md", "new"]
    assert await room.commit(worktree) == sha


async def test_an_edit_of_such_a_file_is_committed(room: Room, untidy: str) -> None:
    worktree = await start(room)
    (worktree.path / untidy).write_text("edited\n")
    sha = await room.commit(worktree)
    assert changed(room, sha, worktree.base_sha) == [untidy]


async def test_what_claude_committed_of_such_a_file_stays(room: Room, untidy: str) -> None:
    worktree = await start(room)
    (worktree.path / untidy).unlink()
    as_claude(worktree.path, "commit", "--quiet", "-a", "-m", "Delete it")
    head = as_claude(worktree.path, "rev-parse", "HEAD")
    assert await room.commit(worktree) == head
    assert changed(room, head, worktree.base_sha) == [untidy]


async def test_files_nobody_touched_are_not_kept(room: Room, untidy: str) -> None:
    worktree = await start(room)
    assert await room.salvage.keep(worktree) is None
    (worktree.path / "new").write_text("x")
    assert await room.salvage.keep(worktree) is not None
    assert untidy not in (await room.patch() or untidy)
    (worktree.path / untidy).write_text("edited\n")
    sha = await room.salvage.keep(worktree)
    assert changed(room, str(sha), worktree.base_sha) == ["new", untidy]


async def test_work_that_is_taken_up_stays_work(room: Room, untidy: str) -> None:
    worktree = await start(room)
    (worktree.path / "new").write_text("x")
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    again = await room.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
    )
    sha = await room.commit(again)
    assert changed(room, sha, again.base_sha) == ["new"]


async def test_a_record_of_an_earlier_version_is_read(room: Room, untidy: str) -> None:
    worktree = await start(room)
    file = worktree.path.with_name("job.json")
    record = read_record(worktree.path) or {}
    del record["files_tree"]
    file.write_text(json.dumps(record))
    found = await room.worktrees.find(OWNER, NAME, "job")
    assert found is not None
    assert await room.worktrees.changed_paths(found) == [untidy]
    await room.publishing.commit_all(found, "All", CLAUDE)
    assert (await room.publishing.head(found)).files_changed == 1


async def test_work_is_kept_although_the_tree_is_lost(room: Room, untidy: str) -> None:
    worktree = await start(room)
    (worktree.path / "new").write_text("x")
    tree = worktree.files_tree or ""
    (worktree.git_dir / "objects" / tree[:2] / tree[2:]).unlink()
    sha = await room.salvage.keep(worktree)
    assert "new" in changed(room, str(sha), worktree.base_sha)


async def test_a_tidy_worktree_needs_no_tree(room: Room) -> None:
    assert (await room.start("job")).files_tree is None
