from __future__ import annotations

import pytest

from domain.errors import InvalidRequest, JobFailure
from domain.failures import FailureCode
from domain.names.ids import new_id
from tests.integration.workspace.conftest import FILES, NAME, OWNER, Room, as_claude
from workspace.worktree.worktree import Worktree


def commit(room: Room, branch: str, text: str = "x") -> str:
    return room.forge.commit(OWNER, NAME, branch, {"file.txt": text}, f"On {branch}")


def files_of(worktree: Worktree) -> dict[str, str]:
    found = [file for file in worktree.path.rglob("*") if file.is_file() and file.name != ".git"]
    return {str(file.relative_to(worktree.path)): file.read_text() for file in found}


async def failure_of_start(room: Room, branch: str, base: str | None = "main") -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await room.start("late", branch, base)
    assert not room.worktrees.path(OWNER, NAME, "late").exists()
    return caught.value


async def test_a_new_branch_starts_at_the_base(room: Room) -> None:
    base = commit(room, "develop")
    worktree = await room.start("job", "feature/x", "develop")
    assert worktree.path == room.worktrees.root / "acme" / "shop" / "job"
    assert (worktree.branch, worktree.base_sha) == ("feature/x", base)
    assert (worktree.continued, worktree.expected_remote) == (False, None)
    assert files_of(worktree) == {**FILES, "file.txt": "x"}
    assert as_claude(worktree.path, "status", "--porcelain", "--branch") == "## feature/x"


async def test_without_a_base_it_starts_at_the_default_branch(room: Room) -> None:
    worktree = await room.start("job", "feature/x", None)
    assert worktree.base_sha == room.remote()["main"]


async def test_a_new_branch_starts_at_a_commit_that_no_branch_has(room: Room) -> None:
    sha = commit(room, "short-lived")
    room.forge.repository(OWNER, NAME).bare.delete("short-lived")
    worktree = await room.start("job", "feature/x", sha)
    assert (worktree.branch, worktree.base_sha, worktree.continued) == ("feature/x", sha, False)
    assert files_of(worktree)["file.txt"] == "x"


async def test_a_branch_of_the_remote_is_continued(room: Room) -> None:
    head = commit(room, "feature/x", "theirs")
    commit(room, "main", "newer")
    worktree = await room.start("job", "feature/x")
    assert (worktree.base_sha, worktree.continued) == (head, True)
    assert worktree.expected_remote == head
    assert files_of(worktree)["file.txt"] == "theirs"


async def test_an_earlier_job_s_branch_does_not_count(room: Room) -> None:
    earlier = await room.start("earlier", "feature/x")
    (earlier.path / "new").write_text("x")
    await room.commit(earlier)
    assert await room.removal.remove(OWNER, NAME, "earlier") is not None
    newer = commit(room, "main")
    worktree = await room.start("job", "feature/x")
    assert worktree.base_sha == newer
    assert as_claude(worktree.path, "rev-parse", "HEAD") == newer
    assert await room.salvage.kept(OWNER, NAME, "earlier") is not None


async def test_the_same_job_finds_its_worktree_as_it_left_it(room: Room) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "README.md").write_text("edited")
    (worktree.path / "new.txt").write_text("new")
    commit(room, "main", "moved on")
    assert await room.start("job", "feature/x") == worktree
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree
    assert files_of(worktree) == {**FILES, "README.md": "edited", "new.txt": "new"}


async def test_an_unknown_job_has_no_worktree(room: Room) -> None:
    assert await room.worktrees.find(OWNER, NAME, "job") is None


async def test_names_that_differ_in_case_share_the_worktree(room: Room) -> None:
    worktree = await room.start("job")
    assert room.worktrees.path(OWNER.upper(), NAME.lower(), "job") == worktree.path


@pytest.mark.parametrize("job_id", ["", "..", "-x", "a/b", ".hidden", "a.json", "a b"])
def test_what_cannot_be_a_job_id_is_refused(room: Room, job_id: str) -> None:
    with pytest.raises(InvalidRequest):
        room.worktrees.path(OWNER, NAME, job_id)


async def test_a_repository_that_was_not_fetched(room: Room) -> None:
    with pytest.raises(JobFailure, match="Fetch it first") as caught:
        await room.worktrees.create_for_branch(OWNER, NAME, "job", "b", "main")
    assert caught.value.transient


async def test_a_branch_another_job_works_on(room: Room) -> None:
    early = new_id()
    await room.start(early, "feature/x")
    found = await failure_of_start(room, "feature/x")
    assert (found.code, found.transient) == (FailureCode.BRANCH_IN_USE, True)
    assert f"in use by job {early}." in found.message
    await room.removal.remove(OWNER, NAME, early)
    await room.start("late", "feature/x")


@pytest.mark.parametrize(("theirs", "ours"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a")])
async def test_a_name_that_a_branch_of_the_remote_forbids(
    room: Room, theirs: str, ours: str
) -> None:
    commit(room, theirs)
    found = await failure_of_start(room, ours)
    assert found.code is FailureCode.BRANCH_CONFLICT
    assert theirs in found.message


@pytest.mark.parametrize(("early", "late"), [("a", "a/b"), ("a/b", "a")])
async def test_a_name_that_a_live_job_s_branch_forbids(room: Room, early: str, late: str) -> None:
    await room.start("early", early)
    found = await failure_of_start(room, late)
    assert found.code is FailureCode.BRANCH_CONFLICT
    await room.removal.remove(OWNER, NAME, "early")
    await room.start("late", late)


async def test_a_branch_of_a_job_whose_worktree_is_half_made(room: Room) -> None:
    early = await room.start("early", "feature/x")
    early.path.with_name("early.json").unlink()
    assert (await failure_of_start(room, "feature/x")).code is FailureCode.BRANCH_IN_USE
    (early.git_dir / "HEAD").unlink()
    await room.start("late", "feature/x")


async def test_what_claude_checks_out_is_no_obstacle_to_others(room: Room) -> None:
    early = await room.start("early", "feature/x")
    as_claude(early.path, "checkout", "--quiet", "-b", "feature/y")
    await room.start("another", "feature/y")
    assert (await failure_of_start(room, "feature/x")).code is FailureCode.BRANCH_IN_USE


async def test_a_branch_of_another_repository_is_no_obstacle(room: Room) -> None:
    room.forge.create_repository("Other", "Place")
    await room.mirrors.fetch("Other", "Place")
    await room.worktrees.create_for_branch("Other", "Place", "early", "feature/x", "main")
    await room.start("late", "feature/x")


async def test_a_similar_name_is_no_conflict(room: Room) -> None:
    commit(room, "a")
    worktree = await room.start("job", "ab")
    assert worktree.branch == "ab"


async def test_a_base_branch_that_does_not_exist(room: Room) -> None:
    commit(room, "x/master")
    found = await failure_of_start(room, "feature/x", "master")
    assert found.code is FailureCode.BASE_BRANCH_NOT_FOUND
    assert "no branch master" in found.message
    assert "default branch is main" in found.message


async def test_reading_starts_at_a_branch(room: Room) -> None:
    sha = commit(room, "develop")
    await room.mirrors.fetch(OWNER, NAME)
    worktree = await room.worktrees.create_detached(OWNER, NAME, "task", "develop")
    assert (worktree.base_sha, worktree.branch) == (sha, None)
    assert as_claude(worktree.path, "rev-parse", "HEAD") == sha
    assert as_claude(worktree.path, "branch", "--show-current") == ""


async def test_two_readers_share_a_branch(room: Room) -> None:
    await room.start("job", "main2")
    for task in ("task1", "task2"):
        worktree = await room.worktrees.create_detached(OWNER, NAME, task, None)
        assert worktree.base_sha == room.remote()["main"]


async def test_reading_comes_back_to_the_commit_it_began_with(room: Room) -> None:
    first = room.remote()["main"]
    commit(room, "main")
    await room.mirrors.fetch(OWNER, NAME)
    worktree = await room.worktrees.create_detached(OWNER, NAME, "task", first)
    assert worktree.base_sha == first
    assert files_of(worktree) == FILES


async def test_reading_comes_back_to_a_commit_no_branch_has(room: Room) -> None:
    sha = commit(room, "short-lived")
    room.forge.repository(OWNER, NAME).bare.delete("short-lived")
    await room.mirrors.fetch(OWNER, NAME)
    worktree = await room.worktrees.create_detached(OWNER, NAME, "task", sha)
    assert files_of(worktree)["file.txt"] == "x"


async def test_reading_cannot_come_back_to_a_commit_that_is_gone(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    with pytest.raises(JobFailure, match="no longer has the commit") as caught:
        await room.worktrees.create_detached(OWNER, NAME, "task", "1" * 40)
    assert caught.value.code is FailureCode.BASE_BRANCH_NOT_FOUND


async def test_reading_goes_on_in_the_same_worktree(room: Room) -> None:
    await room.mirrors.fetch(OWNER, NAME)
    first = await room.worktrees.create_detached(OWNER, NAME, "task", "main")
    commit(room, "main")
    await room.mirrors.fetch(OWNER, NAME)
    assert await room.worktrees.create_detached(OWNER, NAME, "task", "main") == first


async def test_changes_are_seen_whatever_their_kind(room: Room) -> None:
    worktree = await room.start("job")
    assert await room.worktrees.changed_paths(worktree) == []
    (worktree.path / "noise.log").write_text("ignored")
    assert await room.worktrees.changed_paths(worktree) == []
    (worktree.path / "README.md").write_text("edited")
    (worktree.path / "src/app.py").rename(worktree.path / "src/main.py")
    (worktree.path / 'f\u00fcr \u4f60 "quoted"\n.txt').write_text("new")
    (worktree.path / "committed").write_text("x")
    as_claude(worktree.path, "add", "committed")
    as_claude(worktree.path, "commit", "-m", "By Claude")
    assert await room.worktrees.changed_paths(worktree) == [
        "README.md",
        "committed",
        'f\u00fcr \u4f60 "quoted"\n.txt',
        "src/app.py",
        "src/main.py",
    ]


async def test_changes_cannot_be_hidden_by_an_exclude_file(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.git_dir / "info" / "exclude").write_text("*\n")
    as_claude(worktree.path, "config", "status.showUntrackedFiles", "no")
    (worktree.path / "new.txt").write_text("new")
    assert await room.worktrees.changed_paths(worktree) == ["new.txt"]


async def test_file_names_that_are_not_utf_8(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "caf\udce9").write_text("latin-1")
    assert await room.worktrees.changed_paths(worktree) == ["caf\ufffd"]
