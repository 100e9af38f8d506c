from __future__ import annotations

import pytest

from domain.errors import InvalidRequest, JobFailure
from domain.failures import FailureCode
from domain.names.ids import new_id
from tests.integration.workspace.conftest import FILES, NAME, OWNER, Host, as_claude
from workspace.worktree.worktree import Worktree


def commit(host: Host, branch: str, text: str = "x") -> str:
    return host.github.commit(OWNER, NAME, branch, {"file.txt": text}, f"On {branch}")


def files_of(worktree: Worktree) -> dict[str, str]:
    found = [file for file in worktree.path.rglob("*") if file.is_file() and file.name != ".git"]
    return {str(file.relative_to(worktree.path)): file.read_text() for file in found}


async def failure_of_start(host: Host, branch: str, base: str | None = "main") -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await host.start("late", branch, base)
    assert not host.worktrees.path(OWNER, NAME, "late").exists()
    return caught.value


async def test_new_branch_starts_at_the_base(host: Host) -> None:
    base = commit(host, "develop")
    worktree = await host.start("job", "feature/x", "develop")
    assert worktree.path == host.worktrees.root / "acme" / "shop" / "job"
    assert (worktree.branch, worktree.base_sha) == ("feature/x", base)
    assert (worktree.continued, worktree.expected_remote) == (False, None)
    assert files_of(worktree) == {**FILES, "file.txt": "x"}
    assert as_claude(worktree.path, "status", "--porcelain", "--branch") == "## feature/x"


async def test_new_branch_without_a_base_starts_at_the_default_branch(host: Host) -> None:
    worktree = await host.start("job", "feature/x", None)
    assert worktree.base_sha == host.remote()["main"]


async def test_new_branch_starts_at_a_commit_without_a_branch(host: Host) -> None:
    sha = commit(host, "short-lived")
    host.github.repository(OWNER, NAME).bare.delete("short-lived")
    worktree = await host.start("job", "feature/x", sha)
    assert (worktree.branch, worktree.base_sha, worktree.continued) == ("feature/x", sha, False)
    assert files_of(worktree)["file.txt"] == "x"


async def test_branch_of_the_remote_is_continued(host: Host) -> None:
    head = commit(host, "feature/x", "theirs")
    commit(host, "main", "newer")
    worktree = await host.start("job", "feature/x")
    assert (worktree.base_sha, worktree.continued) == (head, True)
    assert worktree.expected_remote == head
    assert files_of(worktree)["file.txt"] == "theirs"


async def test_branch_of_an_earlier_job_is_not_used(host: Host) -> None:
    earlier = await host.start("earlier", "feature/x")
    (earlier.path / "new").write_text("x")
    await host.commit(earlier)
    assert await host.removal.remove(OWNER, NAME, "earlier") is not None
    newer = commit(host, "main")
    worktree = await host.start("job", "feature/x")
    assert worktree.base_sha == newer
    assert as_claude(worktree.path, "rev-parse", "HEAD") == newer
    assert await host.salvage.kept(OWNER, NAME, "earlier") is not None


async def test_job_finds_its_worktree_unchanged(host: Host) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "README.md").write_text("edited")
    (worktree.path / "new.txt").write_text("new")
    commit(host, "main", "moved on")
    assert await host.start("job", "feature/x") == worktree
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree
    assert files_of(worktree) == {**FILES, "README.md": "edited", "new.txt": "new"}


async def test_unknown_job_has_no_worktree(host: Host) -> None:
    assert await host.worktrees.find(OWNER, NAME, "job") is None


async def test_names_that_differ_in_case_share_the_worktree(host: Host) -> None:
    worktree = await host.start("job")
    assert host.worktrees.path(OWNER.upper(), NAME.lower(), "job") == worktree.path


@pytest.mark.parametrize("job_id", ["", "..", "-x", "a/b", ".hidden", "a.json", "a b"])
def test_invalid_job_id_is_refused(host: Host, job_id: str) -> None:
    with pytest.raises(InvalidRequest):
        host.worktrees.path(OWNER, NAME, job_id)


async def test_repository_must_be_fetched_first(host: Host) -> None:
    with pytest.raises(JobFailure, match="Fetch it first") as caught:
        await host.worktrees.create_for_branch(OWNER, NAME, "job", "b", "main")
    assert caught.value.transient


async def test_branch_of_another_job_is_refused(host: Host) -> None:
    early = new_id()
    await host.start(early, "feature/x")
    found = await failure_of_start(host, "feature/x")
    assert (found.code, found.transient) == (FailureCode.BRANCH_IN_USE, True)
    assert f"in use by job {early}." in found.message
    await host.removal.remove(OWNER, NAME, early)
    await host.start("late", "feature/x")


@pytest.mark.parametrize(("theirs", "ours"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a")])
async def test_branch_that_conflicts_with_the_remote_is_refused(
    host: Host, theirs: str, ours: str
) -> None:
    commit(host, theirs)
    found = await failure_of_start(host, ours)
    assert found.code is FailureCode.BRANCH_CONFLICT
    assert theirs in found.message


@pytest.mark.parametrize(("early", "late"), [("a", "a/b"), ("a/b", "a")])
async def test_branch_that_conflicts_with_a_live_job_is_refused(
    host: Host, early: str, late: str
) -> None:
    await host.start("early", early)
    found = await failure_of_start(host, late)
    assert found.code is FailureCode.BRANCH_CONFLICT
    await host.removal.remove(OWNER, NAME, "early")
    await host.start("late", late)


async def test_branch_of_an_incomplete_worktree_is_in_use(host: Host) -> None:
    early = await host.start("early", "feature/x")
    early.path.with_name("early.json").unlink()
    assert (await failure_of_start(host, "feature/x")).code is FailureCode.BRANCH_IN_USE
    (early.git_dir / "HEAD").unlink()
    await host.start("late", "feature/x")


async def test_branch_that_claude_checked_out_is_not_in_use(host: Host) -> None:
    early = await host.start("early", "feature/x")
    as_claude(early.path, "checkout", "--quiet", "-b", "feature/y")
    await host.start("another", "feature/y")
    assert (await failure_of_start(host, "feature/x")).code is FailureCode.BRANCH_IN_USE


async def test_branch_of_another_repository_is_not_in_use(host: Host) -> None:
    host.github.create_repository("Other", "Place")
    await host.mirrors.fetch("Other", "Place")
    await host.worktrees.create_for_branch("Other", "Place", "early", "feature/x", "main")
    await host.start("late", "feature/x")


async def test_similar_branch_name_is_not_a_conflict(host: Host) -> None:
    commit(host, "a")
    worktree = await host.start("job", "ab")
    assert worktree.branch == "ab"


async def test_missing_base_branch_is_refused(host: Host) -> None:
    commit(host, "x/master")
    found = await failure_of_start(host, "feature/x", "master")
    assert found.code is FailureCode.BASE_BRANCH_NOT_FOUND
    assert "no branch master" in found.message
    assert "default branch is main" in found.message


async def test_read_only_worktree_starts_at_a_branch(host: Host) -> None:
    sha = commit(host, "develop")
    await host.mirrors.fetch(OWNER, NAME)
    worktree = await host.worktrees.create_detached(OWNER, NAME, "task", "develop")
    assert (worktree.base_sha, worktree.branch) == (sha, None)
    assert as_claude(worktree.path, "rev-parse", "HEAD") == sha
    assert as_claude(worktree.path, "branch", "--show-current") == ""


async def test_read_only_worktrees_can_share_a_branch(host: Host) -> None:
    await host.start("job", "main2")
    for task in ("task1", "task2"):
        worktree = await host.worktrees.create_detached(OWNER, NAME, task, None)
        assert worktree.base_sha == host.remote()["main"]


async def test_read_only_worktree_is_created_again_at_its_first_commit(host: Host) -> None:
    first = host.remote()["main"]
    commit(host, "main")
    await host.mirrors.fetch(OWNER, NAME)
    worktree = await host.worktrees.create_detached(OWNER, NAME, "task", first)
    assert worktree.base_sha == first
    assert files_of(worktree) == FILES


async def test_read_only_worktree_starts_at_a_commit_without_a_branch(host: Host) -> None:
    sha = commit(host, "short-lived")
    host.github.repository(OWNER, NAME).bare.delete("short-lived")
    await host.mirrors.fetch(OWNER, NAME)
    worktree = await host.worktrees.create_detached(OWNER, NAME, "task", sha)
    assert files_of(worktree)["file.txt"] == "x"


async def test_read_only_worktree_needs_an_existing_commit(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    with pytest.raises(JobFailure, match="no longer has the commit") as caught:
        await host.worktrees.create_detached(OWNER, NAME, "task", "1" * 40)
    assert caught.value.code is FailureCode.BASE_BRANCH_NOT_FOUND


async def test_read_only_worktree_is_found_again(host: Host) -> None:
    await host.mirrors.fetch(OWNER, NAME)
    first = await host.worktrees.create_detached(OWNER, NAME, "task", "main")
    commit(host, "main")
    await host.mirrors.fetch(OWNER, NAME)
    assert await host.worktrees.create_detached(OWNER, NAME, "task", "main") == first


async def test_all_kinds_of_changes_are_detected(host: Host) -> None:
    worktree = await host.start("job")
    assert await host.worktrees.changed_paths(worktree) == []
    (worktree.path / "noise.log").write_text("ignored")
    assert await host.worktrees.changed_paths(worktree) == []
    (worktree.path / "README.md").write_text("edited")
    (worktree.path / "src/app.py").rename(worktree.path / "src/main.py")
    (worktree.path / 'f\u00fcr \u4f60 "quoted"\n.txt').write_text("new")
    (worktree.path / "committed").write_text("x")
    as_claude(worktree.path, "add", "committed")
    as_claude(worktree.path, "commit", "-m", "By Claude")
    assert await host.worktrees.changed_paths(worktree) == [
        "README.md",
        "committed",
        'f\u00fcr \u4f60 "quoted"\n.txt',
        "src/app.py",
        "src/main.py",
    ]


async def test_exclude_file_cannot_hide_changes(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.git_dir / "info" / "exclude").write_text("*\n")
    as_claude(worktree.path, "config", "status.showUntrackedFiles", "no")
    (worktree.path / "new.txt").write_text("new")
    assert await host.worktrees.changed_paths(worktree) == ["new.txt"]


async def test_file_names_that_are_not_utf_8_are_replaced(host: Host) -> None:
    worktree = await host.start("job")
    (worktree.path / "caf\udce9").write_text("latin-1")
    assert await host.worktrees.changed_paths(worktree) == ["caf\ufffd"]
