"""Repositories whose files differ from their commit right after the checkout."""

from __future__ import annotations

import json

import pytest

from tests.integration.workspace import git_lfs
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Host, as_claude
from workspace.worktree.worktree import Worktree, read_record

DIRTY = {
    "line-ends": ({".gitattributes": "*.bat text eol=crlf\n"}, "run.bat"),
    "no-line-ends": ({".gitattributes": "*.txt text\n"}, "old.txt"),
    "lfs": ({".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n"}, "old.psd"),
}
RAW = "one\r\ntwo\r\n"


@pytest.fixture(params=DIRTY)
def dirty_file(request: pytest.FixtureRequest, host: Host) -> str:
    """Commit a file that is modified right after every checkout, and return its name."""
    attributes, name = DIRTY[request.param]
    if request.param == "lfs":
        Host.__init__(host, host.directory, host.github, search_path=git_lfs.search_path())
    host.github.commit(OWNER, NAME, "main", {**attributes, name: RAW}, "Dirty")
    return name


async def start(host: Host) -> Worktree:
    """Create a worktree in which git reports a modified file.

    Git compares the content of a file only if the file is not older than the index, in seconds. If
    a new second starts between the two, git reports the file as unmodified.
    """
    for _ in range(5):
        worktree = await host.start("job")
        if worktree.files_tree is not None:
            return worktree
        await host.removal.remove(OWNER, NAME, "job")
    raise AssertionError("Git reports no modified file.")


def changed(host: Host, sha: str, base: str) -> list[str]:
    return as_claude(host.mirror_path, "diff", "--name-only", base, sha).split()


async def test_untouched_files_are_not_changes(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    assert await host.worktrees.changed_paths(worktree) == []
    (worktree.path / "new").write_text("x")
    (worktree.path / dirty_file).write_bytes((worktree.path / dirty_file).read_bytes())
    assert await host.worktrees.changed_paths(worktree) == ["new"]
    (worktree.path / dirty_file).write_text("edited\n")
    assert await host.worktrees.changed_paths(worktree) == ["new", dirty_file]


async def test_untouched_files_are_not_committed(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    assert await host.commit(worktree) == worktree.base_sha
    (worktree.path / "new").write_text("x")
    (worktree.path / "README.md").unlink()
    sha = await host.commit(worktree)
    assert changed(host, sha, worktree.base_sha) == ["README.md", "new"]
    assert await host.commit(worktree) == sha


async def test_edit_of_a_dirty_file_is_committed(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    (worktree.path / dirty_file).write_text("edited\n")
    sha = await host.commit(worktree)
    assert changed(host, sha, worktree.base_sha) == [dirty_file]


async def test_commit_of_a_dirty_file_by_claude_stays(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    (worktree.path / dirty_file).unlink()
    as_claude(worktree.path, "commit", "--quiet", "-a", "-m", "Delete it")
    head = as_claude(worktree.path, "rev-parse", "HEAD")
    assert await host.commit(worktree) == head
    assert changed(host, head, worktree.base_sha) == [dirty_file]


async def test_untouched_files_are_not_kept(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    assert await host.salvage.keep(worktree) is None
    (worktree.path / "new").write_text("x")
    assert await host.salvage.keep(worktree) is not None
    assert dirty_file not in (await host.patch() or dirty_file)
    (worktree.path / dirty_file).write_text("edited\n")
    sha = await host.salvage.keep(worktree)
    assert changed(host, str(sha), worktree.base_sha) == ["new", dirty_file]


async def test_restored_work_is_committed(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    (worktree.path / "new").write_text("x")
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    again = await host.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
    )
    sha = await host.commit(again)
    assert changed(host, sha, again.base_sha) == ["new"]


async def test_record_without_a_files_tree_is_read(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    file = worktree.path.with_name("job.json")
    record = read_record(worktree.path) or {}
    del record["files_tree"]
    file.write_text(json.dumps(record))
    found = await host.worktrees.find(OWNER, NAME, "job")
    assert found is not None
    assert await host.worktrees.changed_paths(found) == [dirty_file]
    await host.publishing.commit_all(found, "All", CLAUDE)
    assert (await host.publishing.head(found)).files_changed == 1


async def test_work_is_kept_if_the_files_tree_is_lost(host: Host, dirty_file: str) -> None:
    worktree = await start(host)
    (worktree.path / "new").write_text("x")
    tree = worktree.files_tree or ""
    (worktree.git_dir / "objects" / tree[:2] / tree[2:]).unlink()
    sha = await host.salvage.keep(worktree)
    assert "new" in changed(host, str(sha), worktree.base_sha)


async def test_clean_checkout_has_no_files_tree(host: Host) -> None:
    assert (await host.start("job")).files_tree is None
