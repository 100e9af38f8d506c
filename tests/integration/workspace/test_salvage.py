from __future__ import annotations

import pytest

from domain.errors import InvalidRequest
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.worktree.worktree import Worktree


def tree(room: Room, commit: str | None) -> list[str]:
    assert commit is not None
    listed = as_claude(
        room.mirror_path, "-c", "core.quotePath=off", "ls-tree", "-r", "--name-only", commit
    )
    return listed.split("\n")


def apply(worktree: Worktree, patch: str | None) -> None:
    assert patch is not None
    file = worktree.path.parent / "kept.patch"
    file.write_text(patch)
    as_claude(worktree.path, "apply", "--index", "--binary", str(file))


async def test_nothing_to_keep(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "noise.log").write_text("ignored")
    assert await room.salvage.keep(worktree) is None
    assert await room.salvage.kept(OWNER, NAME, "job") is None
    assert await room.patch() is None


async def test_uncommitted_work_is_kept_and_nothing_is_disturbed(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "README.md").write_text("edited\n")
    (worktree.path / "staged").write_text("staged\n")
    as_claude(worktree.path, "add", "staged")
    (worktree.path / "f\u00fcr \u4f60.txt").write_text("untracked\n")
    (worktree.path / "src/app.py").unlink()
    (worktree.path / "noise.log").write_text("ignored\n")
    before = as_claude(worktree.path, "status", "--porcelain")
    sha = await room.salvage.keep(worktree)
    assert as_claude(worktree.path, "status", "--porcelain") == before
    assert tree(room, sha) == [".gitignore", "README.md", "f\u00fcr \u4f60.txt", "staged"]
    assert not list(worktree.git_dir.glob("index-*"))


async def test_keeping_again_keeps_the_same_commit(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("1")
    first = await room.salvage.keep(worktree)
    assert await room.salvage.keep(worktree) == first
    (worktree.path / "new").write_text("2")
    second = await room.salvage.keep(worktree)
    assert second != first
    parents = as_claude(room.mirror_path, "log", "-1", "--format=%P", str(second)).split()
    assert parents == [worktree.base_sha, first]
    assert await room.salvage.keep(worktree) == second


async def test_commits_that_were_not_pushed_are_kept(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    as_claude(worktree.path, "add", ".")
    as_claude(worktree.path, "commit", "-m", "By Claude")
    commit = as_claude(worktree.path, "rev-parse", "HEAD")
    sha = await room.salvage.keep(worktree)
    assert as_claude(room.mirror_path, "log", "-1", "--format=%P", str(sha)) == commit
    assert "+x" in (await room.patch() or "")


async def test_what_was_pushed_need_not_be_kept(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await room.publish(worktree)
    assert await room.salvage.keep(worktree) is None


async def test_commits_of_head_and_branch_are_kept_both(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "commit", "--allow-empty", "-m", "On the branch")
    on_branch = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    as_claude(worktree.path, "commit", "--allow-empty", "-m", "Elsewhere")
    elsewhere = as_claude(worktree.path, "rev-parse", "HEAD")
    sha = await room.salvage.keep(worktree)
    parents = as_claude(room.mirror_path, "log", "-1", "--format=%P", str(sha)).split()
    assert parents == [elsewhere, on_branch]


async def test_a_branch_ahead_of_what_is_checked_out_is_the_work(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    as_claude(worktree.path, "add", ".")
    as_claude(worktree.path, "commit", "-m", "By Claude")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    assert "new" in tree(room, await room.salvage.keep(worktree))


async def test_a_conflict_is_kept_as_it_stands(room: Room) -> None:
    worktree = await room.start("job")
    for branch in ("side", "feature/job"):
        as_claude(worktree.path, "checkout", "-q", "-B", branch, worktree.base_sha)
        (worktree.path / "README.md").write_text(branch)
        as_claude(worktree.path, "commit", "-a", "-m", branch)
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "side")
    before = as_claude(worktree.path, "status", "--porcelain")
    assert before == "UU README.md"
    await room.salvage.keep(worktree)
    assert as_claude(worktree.path, "status", "--porcelain") == before
    assert "<<<<<<<" in (await room.patch() or "")


async def test_a_new_component_with_a_repository_of_its_own_is_kept(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "app").mkdir()
    as_claude(worktree.path / "app", "init", "--quiet")
    (worktree.path / "app" / "main.py").write_text("x")
    assert "app/main.py" in tree(room, await room.salvage.keep(worktree))


async def test_a_deleted_worktree_still_has_its_commits(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "new").write_text("x")
    await room.publishing.commit_all(worktree, "Done", CLAUDE)
    as_claude(room.directory, "-c", "alias.x=!rm -r", "x", str(worktree.path))
    assert "new" in tree(room, await room.salvage.keep(worktree))


async def test_a_patch_brings_the_work_back(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "README.md").write_text("edited\n")
    (worktree.path / "f\u00fcr \u4f60.txt").write_text("new\n")
    (worktree.path / "image.bin").write_bytes(bytes(range(256)) * 4)
    (worktree.path / "src/app.py").unlink()
    await room.salvage.keep(worktree)
    again = await room.start("again")
    apply(again, await room.patch())
    assert (again.path / "README.md").read_text() == "edited\n"
    assert (again.path / "f\u00fcr \u4f60.txt").read_text() == "new\n"
    assert (again.path / "image.bin").read_bytes() == bytes(range(256)) * 4
    assert not (again.path / "src/app.py").exists()


async def test_a_patch_is_text_even_if_the_files_are_not_utf_8(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "latin.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    await room.salvage.keep(worktree)
    patch = await room.patch()
    assert patch is not None
    patch.encode("utf-8")
    again = await room.start("again")
    apply(again, patch)
    assert (again.path / "latin.txt").read_bytes() == "caf\u00e9\n".encode("latin-1")


async def test_a_job_nobody_knows_has_no_patch(room: Room) -> None:
    assert await room.patch("nobody") is None
    await room.mirrors.fetch(OWNER, NAME)
    assert await room.patch("nobody") is None
    with pytest.raises(InvalidRequest):
        await room.patch("../../heads/main")


async def test_odd_files_are_kept_too(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "good").write_text("x")
    as_claude(worktree.path, "init", "--quiet", "broken")
    (worktree.path / "broken" / "fine").write_text("y")
    (worktree.path / "dangling").symlink_to("/nonexistent")
    assert {"good", "broken/fine", "dangling"} <= set(tree(room, await room.salvage.keep(worktree)))
