from __future__ import annotations

import pytest

from domain.errors import InvalidRequest
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Host, as_claude
from workspace.worktree.worktree import Worktree


def tree(host: Host, commit: str | None) -> list[str]:
    assert commit is not None
    listed = as_claude(
        host.mirror_path, "-c", "core.quotePath=off", "ls-tree", "-r", "--name-only", commit
    )
    return listed.split("\n")


def apply(worktree: Worktree, patch: str | None) -> None:
    assert patch is not None
    file = worktree.path.parent / "kept.patch"
    file.write_text(patch)
    as_claude(worktree.path, "apply", "--index", "--binary", str(file))


async def test_no_work_is_not_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "noise.log").write_text("ignored")
    assert await host.salvage.keep(worktree) is None
    assert await host.salvage.kept(OWNER, NAME, "job") is None
    assert await host.patch() is None


async def test_uncommitted_work_is_kept_without_changing_the_worktree(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "README.md").write_text("edited\n")
    (worktree.path / "staged").write_text("staged\n")
    as_claude(worktree.path, "add", "staged")
    (worktree.path / "f\u00fcr \u4f60.txt").write_text("untracked\n")
    (worktree.path / "src/app.py").unlink()
    (worktree.path / "noise.log").write_text("ignored\n")
    before = as_claude(worktree.path, "status", "--porcelain")
    sha = await host.salvage.keep(worktree)
    assert as_claude(worktree.path, "status", "--porcelain") == before
    assert tree(host, sha) == [".gitignore", "README.md", "f\u00fcr \u4f60.txt", "staged"]
    assert not list(worktree.git_dir.glob("index-*"))


async def test_keeping_is_idempotent(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("1")
    first = await host.salvage.keep(worktree)
    assert await host.salvage.keep(worktree) == first
    (worktree.path / "new").write_text("2")
    second = await host.salvage.keep(worktree)
    assert second != first
    parents = as_claude(host.mirror_path, "log", "-1", "--format=%P", str(second)).split()
    assert parents == [worktree.base_sha, first]
    assert await host.salvage.keep(worktree) == second


async def test_commits_that_were_not_pushed_are_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    as_claude(worktree.path, "add", ".")
    as_claude(worktree.path, "commit", "-m", "By Claude")
    commit = as_claude(worktree.path, "rev-parse", "HEAD")
    sha = await host.salvage.keep(worktree)
    assert as_claude(host.mirror_path, "log", "-1", "--format=%P", str(sha)) == commit
    assert "+x" in (await host.patch() or "")


async def test_pushed_work_is_not_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    await host.publish(worktree)
    assert await host.salvage.keep(worktree) is None


async def test_commits_of_head_and_branch_are_kept(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "commit", "--allow-empty", "-m", "On the branch")
    on_branch = as_claude(worktree.path, "rev-parse", "HEAD")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    as_claude(worktree.path, "commit", "--allow-empty", "-m", "Elsewhere")
    elsewhere = as_claude(worktree.path, "rev-parse", "HEAD")
    sha = await host.salvage.keep(worktree)
    parents = as_claude(host.mirror_path, "log", "-1", "--format=%P", str(sha)).split()
    assert parents == [elsewhere, on_branch]


async def test_branch_ahead_of_head_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    as_claude(worktree.path, "add", ".")
    as_claude(worktree.path, "commit", "-m", "By Claude")
    as_claude(worktree.path, "checkout", "--detach", "HEAD~1")
    assert "new" in tree(host, await host.salvage.keep(worktree))


async def test_unresolved_conflict_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    for branch in ("side", "feature/job"):
        as_claude(worktree.path, "checkout", "-q", "-B", branch, worktree.base_sha)
        (worktree.path / "README.md").write_text(branch)
        as_claude(worktree.path, "commit", "-a", "-m", branch)
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "side")
    before = as_claude(worktree.path, "status", "--porcelain")
    assert before == "UU README.md"
    await host.salvage.keep(worktree)
    assert as_claude(worktree.path, "status", "--porcelain") == before
    assert "<<<<<<<" in (await host.patch() or "")


async def test_new_directory_with_its_own_repository_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "app").mkdir()
    as_claude(worktree.path / "app", "init", "--quiet")
    (worktree.path / "app" / "main.py").write_text("x")
    assert "app/main.py" in tree(host, await host.salvage.keep(worktree))


async def test_commits_of_a_deleted_worktree_are_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "new").write_text("x")
    await host.publishing.commit_all(worktree, "Done", CLAUDE)
    as_claude(host.directory, "-c", "alias.x=!rm -r", "x", str(worktree.path))
    assert "new" in tree(host, await host.salvage.keep(worktree))


async def test_patch_restores_the_work(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "README.md").write_text("edited\n")
    (worktree.path / "f\u00fcr \u4f60.txt").write_text("new\n")
    (worktree.path / "image.bin").write_bytes(bytes(range(256)) * 4)
    (worktree.path / "src/app.py").unlink()
    await host.salvage.keep(worktree)
    again = await host.start("again")
    apply(again, await host.patch())
    assert (again.path / "README.md").read_text() == "edited\n"
    assert (again.path / "f\u00fcr \u4f60.txt").read_text() == "new\n"
    assert (again.path / "image.bin").read_bytes() == bytes(range(256)) * 4
    assert not (again.path / "src/app.py").exists()


async def test_patch_is_text_even_if_the_files_are_not_utf_8(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "latin.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    await host.salvage.keep(worktree)
    patch = await host.patch()
    assert patch is not None
    patch.encode("utf-8")
    again = await host.start("again")
    apply(again, patch)
    assert (again.path / "latin.txt").read_bytes() == "caf\u00e9\n".encode("latin-1")


async def test_unknown_job_has_no_patch(host: Host) -> None:
    assert await host.patch("unknown") is None
    await host.mirrors.fetch(OWNER, NAME)
    assert await host.patch("unknown") is None
    with pytest.raises(InvalidRequest):
        await host.patch("../../heads/main")


async def test_broken_repositories_and_dangling_links_are_kept(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "good").write_text("x")
    as_claude(worktree.path, "init", "--quiet", "broken")
    (worktree.path / "broken" / "fine").write_text("y")
    (worktree.path / "dangling").symlink_to("/nonexistent")
    assert {"good", "broken/fine", "dangling"} <= set(tree(host, await host.salvage.keep(worktree)))
