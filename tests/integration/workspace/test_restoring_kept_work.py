"""Kept work of one job, restored by another."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Host, as_claude
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree

ORIGINAL = "1" * 40


async def keep_work(host: Host) -> Salvaged:
    """Remove the worktree of `job` and return its kept work."""
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    return kept


async def restore(host: Host, kept: Salvaged, *, branch: str = "again") -> Worktree:
    await host.mirrors.fetch(OWNER, NAME)
    return await host.worktrees.create_from_salvage(
        OWNER, NAME, "again", branch, "job", kept.base_sha, kept.head_sha, kept.patch
    )


async def restore_failure(host: Host, kept: Salvaged, *, branch: str = "again") -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await restore(host, kept, branch=branch)
    assert not host.worktrees.path(OWNER, NAME, "again").exists()
    return caught.value


def work_as_patch(host: Host, patch: str | None) -> Salvaged:
    """Return work that exists only as a patch."""
    return Salvaged(host.remote()["main"], ORIGINAL, patch)


def commit(worktree: Worktree, name: str) -> str:
    (worktree.path / name).write_text(f"{name}\n")
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "--quiet", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


@pytest.fixture
def other_host(host: Host, tmp_path: Path) -> Host:
    return Host(tmp_path / "other-host", host.github)


async def test_commits_are_published_unchanged_and_edits_as_one_commit(host: Host) -> None:
    worktree = await host.start("job")
    by_claude = commit(worktree, "one")
    (worktree.path / "two").write_text("two\n")
    kept = await keep_work(host)
    host.github.commit(OWNER, NAME, "main", {"other": "x"}, "Other")
    again = await restore(host, kept)
    assert (again.base_sha, again.branch, again.continued) == (kept.base_sha, "again", False)
    assert again.notices == ()
    assert as_claude(again.path, "rev-parse", "HEAD") == by_claude
    assert as_claude(again.path, "status", "--porcelain") == "A  two"
    await host.publish(again, "The rest")
    assert host.remote_log("again") == ["The rest", "Claude: one", "Initial commit"]
    assert host.github.read_file(OWNER, NAME, "again", "two") == "two\n"
    head = await host.publishing.head(again)
    assert (head.commits_ahead, head.files_changed) == (2, 2)
    assert await host.removal.remove(OWNER, NAME, "again") is None


async def test_commits_without_edits_are_published_unchanged(host: Host) -> None:
    by_claude = commit(await host.start("job"), "one")
    kept = await keep_work(host)
    again = await restore(host, kept)
    assert await host.publish(again) == by_claude
    assert host.remote()["again"] == by_claude


async def test_other_host_commits_the_patch(host: Host, other_host: Host) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    (worktree.path / "README.md").unlink()
    kept = await keep_work(host)
    again = await restore(other_host, kept)
    assert as_claude(again.path, "status", "--porcelain") == "D  README.md\nA  one"
    await other_host.publish(again, "All of it")
    assert host.remote_log("again") == ["All of it", "Initial commit"]
    assert (await other_host.publishing.head(again)).files_changed == 2


async def test_restored_worktree_is_found_again(host: Host) -> None:
    (await host.start("job")).path.joinpath("new").write_text("x")
    kept = await keep_work(host)
    again = await restore(host, kept)
    (again.path / "more").write_text("y")
    assert await restore(host, replace(kept, patch=None)) == again
    assert (again.path / "more").read_text() == "y"


async def test_incomplete_restored_worktree_is_created_again(host: Host) -> None:
    (await host.start("job")).path.joinpath("new").write_text("x")
    kept = await keep_work(host)
    again = await restore(host, kept)
    (again.path / "new").unlink()
    again.path.with_name("again.json").unlink()
    assert await host.worktrees.find(OWNER, NAME, "again") is None
    assert await restore(host, kept) == again
    assert as_claude(again.path, "status", "--porcelain") == "A  new"


async def test_unpublished_restored_work_is_kept_again(host: Host) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    (worktree.path / "two").write_text("two\n")
    kept = await keep_work(host)
    await restore(host, kept)
    kept_again = await host.removal.remove(OWNER, NAME, "again")
    assert kept_again is not None
    assert (kept_again.base_sha, kept_again.patch) == (kept.base_sha, kept.patch)


async def test_notice_names_commits_of_other_branches(host: Host) -> None:
    worktree = await host.start("job")
    on_branch = commit(worktree, "one")
    as_claude(worktree.path, "checkout", "--quiet", "--detach", worktree.base_sha)
    checked_out = commit(worktree, "two")
    kept = await keep_work(host)
    again = await restore(host, kept)
    [notice] = again.notices
    assert as_claude(again.path, "rev-parse", "HEAD") == checked_out
    assert on_branch[:12] in notice
    assert checked_out[:12] not in notice
    assert "refs/orchestrator/salvage/job" in notice
    found = await host.worktrees.find(OWNER, NAME, "again")
    assert found is not None
    assert found.notices == (notice,)


async def test_notice_names_previously_kept_work(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "one").write_text("1")
    earlier = await host.salvage.keep(worktree)
    (worktree.path / "one").unlink()
    (worktree.path / "two").write_text("2")
    kept = await keep_work(host)
    again = await restore(host, kept)
    assert as_claude(again.path, "status", "--porcelain") == "A  two"
    assert str(earlier)[:12] in again.notices[0]


@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
async def test_notice_names_files_with_merge_conflicts(
    host: Host, other_host: Host, here: bool
) -> None:
    markers = "<<<<<<< ours\n=======\n>>>>>>> theirs\n"
    host.github.commit(OWNER, NAME, "main", {"manual.md": markers}, "Explain conflicts")
    worktree = await host.start("job")
    commit(worktree, "clash")
    as_claude(worktree.path, "checkout", "--quiet", "-b", "side", worktree.base_sha)
    (worktree.path / "clash").write_text("other\n")
    as_claude(worktree.path, "add", "clash")
    as_claude(worktree.path, "commit", "--quiet", "-m", "Other")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "side")
    side = as_claude(worktree.path, "rev-parse", "side")
    kept = await keep_work(host)
    again = await restore(host if here else other_host, kept)
    *others, notice = again.notices
    assert "conflicts" in notice
    assert notice.endswith(": clash.")
    # A patch contains nothing of the other branch of the merge.
    assert [side[:12] in other for other in others] == [True] * here


async def keep_older_version(host: Host, other_host: Host) -> Salvaged:
    """Keep one commit on this host and two on the other; return the work of the other."""
    commit(await host.start("job"), "one")
    await keep_work(host)
    worktree = await other_host.start("job")
    for name in ("one", "two"):
        commit(worktree, name)
    return await keep_work(other_host)


async def test_older_version_on_this_host_is_not_used(host: Host, other_host: Host) -> None:
    kept = await keep_older_version(host, other_host)
    again = await restore(host, kept)
    assert as_claude(again.path, "status", "--porcelain") == "A  one\nA  two"
    await host.publish(again)
    assert host.github.read_file(OWNER, NAME, "again", "two") == "two\n"


async def test_older_version_does_not_replace_a_missing_patch(host: Host, other_host: Host) -> None:
    kept = await keep_older_version(host, other_host)
    failure = await restore_failure(host, replace(kept, patch=None))
    assert failure.code is FailureCode.KEPT_WORK_GONE
    assert kept.head_sha in failure.message
    assert await host.salvage.kept(OWNER, NAME, "job") not in (None, kept)


async def test_checked_out_older_commit_does_not_split_the_work(host: Host) -> None:
    worktree = await host.start("job")
    by_claude = commit(worktree, "one")
    as_claude(worktree.path, "checkout", "--quiet", "--detach", worktree.base_sha)
    kept = await keep_work(host)
    again = await restore(host, kept)
    assert again.notices == ()
    assert await host.publish(again) == by_claude


async def test_missing_work_is_reported_as_gone(host: Host) -> None:
    failure = await restore_failure(host, work_as_patch(host, None))
    assert failure.code is FailureCode.KEPT_WORK_GONE
    assert not failure.transient


async def test_base_that_the_remote_no_longer_has(host: Host) -> None:
    failure = await restore_failure(host, Salvaged(ORIGINAL, ORIGINAL, ""))
    assert failure.code is FailureCode.KEPT_WORK_GONE
    assert ORIGINAL in failure.message


async def test_base_without_a_branch(host: Host, other_host: Host) -> None:
    base = host.github.commit(OWNER, NAME, "side", {"side": "x"}, "Side")
    (await host.start("job", "feature/x", "side")).path.joinpath("new").write_text("x")
    kept = await keep_work(host)
    assert kept.base_sha == base
    host.github.repository(OWNER, NAME).bare.delete("side")
    again = await restore(other_host, kept)
    assert (again.path / "side").exists()


@pytest.mark.parametrize("branch", ["main", "main/x"])
async def test_existing_or_conflicting_branch_is_refused(host: Host, branch: str) -> None:
    (await host.start("job")).path.joinpath("new").write_text("x")
    kept = await keep_work(host)
    failure = await restore_failure(host, kept, branch=branch)
    assert failure.code is FailureCode.BRANCH_CONFLICT
    assert "main" in failure.message


def new_file(path: str, text: str = "evil", mode: str = "100644") -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1 @@\n+{text}\n\\ No newline at end of file\n"
    )


def binary_file(path: str, content: bytes) -> str:
    packed = base64.b85encode(zlib.compress(content), pad=True).decode()
    length = chr(ord("A") + len(zlib.compress(content)) - 1)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex {'0' * 40}..{'1' * 40}\n"
        f"GIT binary patch\nliteral {len(content)}\n{length}{packed}\n\nliteral 0\nHcmV?d00001\n\n"
    )


@pytest.mark.parametrize(
    "patch",
    [
        new_file("../outside"),
        new_file("a/../../outside"),
        new_file("/outside"),
        new_file(".git/hooks/post-checkout"),
        new_file(".GIT/config"),
        new_file("src/.git/config"),
        new_file("git~1/config"),
        new_file("link", "/tmp", "120000") + new_file("link/outside"),
        new_file(".gitmodules", "/etc/passwd", "120000"),
        "diff --git a/README.md b/../outside\nsimilarity index 100%\n"
        "rename from README.md\nrename to ../outside\n",
        new_file("README.md"),
        binary_file("x", b"other"),
        "no patch at all",
        "@@ -1 +1 @@\n",
    ],
)
async def test_hostile_patch_is_refused_and_changes_nothing(host: Host, patch: str) -> None:
    failure = await restore_failure(host, work_as_patch(host, patch))
    assert failure.code is FailureCode.GIT_FAILED
    assert not [file for file in host.directory.parent.rglob("*") if "outside" in file.name]


async def test_patch_does_not_follow_symlinks(host: Host, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    author = tmp_path / "author"
    as_claude(tmp_path, "clone", "-q", str(host.github.root / OWNER / f"{NAME}.git"), str(author))
    (author / "link").symlink_to(victim)
    as_claude(author, "add", ".")
    as_claude(author, "commit", "-q", "-m", "Link")
    as_claude(author, "push", "-q", "origin", "HEAD:main")
    failure = await restore_failure(host, work_as_patch(host, new_file("link/file")))
    assert failure.code is FailureCode.GIT_FAILED
    assert list(victim.iterdir()) == []


async def test_patch_does_not_run_planted_filters(host: Host, tmp_path: Path) -> None:
    mirror = await host.mirrors.fetch(OWNER, NAME)
    proof = tmp_path / "proof"
    as_claude(mirror.path, "config", "filter.evil.smudge", f"touch {proof}")
    as_claude(mirror.path, "config", "filter.evil.clean", f"touch {proof}")
    patch = new_file(".gitattributes", "* filter=evil") + new_file("x")
    again = await restore(host, work_as_patch(host, patch))
    assert (again.path / "x").read_text() == "evil"
    await host.publishing.commit_all(again, "Deliver", CLAUDE)
    assert not proof.exists()
