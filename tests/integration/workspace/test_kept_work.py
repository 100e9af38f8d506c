"""Work that one job left, taken up by another."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, Room, as_claude
from workspace.salvage.salvage import Salvaged
from workspace.worktree.worktree import Worktree

ORIGINAL = "1" * 40


async def leave(room: Room) -> Salvaged:
    """Remove the worktree of `job` and return what is kept of it."""
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    return kept


async def resume_or_start(room: Room, kept: Salvaged, *, branch: str = "again") -> Worktree:
    await room.mirrors.fetch(OWNER, NAME)
    return await room.worktrees.create_from_salvage(
        OWNER, NAME, "again", branch, "job", kept.base_sha, kept.head_sha, kept.patch
    )


async def refusal(room: Room, kept: Salvaged, *, branch: str = "again") -> JobFailure:
    with pytest.raises(JobFailure) as caught:
        await resume_or_start(room, kept, branch=branch)
    assert not room.worktrees.path(OWNER, NAME, "again").exists()
    return caught.value


def patched(room: Room, patch: str | None) -> Salvaged:
    """Return work that only a patch has."""
    return Salvaged(room.remote()["main"], ORIGINAL, patch)


def commit(worktree: Worktree, name: str) -> str:
    (worktree.path / name).write_text(f"{name}\n")
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "--quiet", "-m", f"Claude: {name}")
    return as_claude(worktree.path, "rev-parse", "HEAD")


@pytest.fixture
def elsewhere(room: Room, tmp_path: Path) -> Room:
    """Another machine."""
    return Room(tmp_path / "elsewhere", room.forge)


async def test_commits_are_published_as_they_are_and_edits_as_one_more(room: Room) -> None:
    worktree = await room.start("job")
    by_claude = commit(worktree, "one")
    (worktree.path / "two").write_text("two\n")
    kept = await leave(room)
    room.forge.commit(OWNER, NAME, "main", {"meanwhile": "x"}, "Meanwhile")
    again = await resume_or_start(room, kept)
    assert (again.base_sha, again.branch, again.continued) == (kept.base_sha, "again", False)
    assert again.notices == ()
    assert as_claude(again.path, "rev-parse", "HEAD") == by_claude
    assert as_claude(again.path, "status", "--porcelain") == "A  two"
    await room.publish(again, "The rest")
    assert room.remote_log("again") == ["The rest", "Claude: one", "Initial commit"]
    assert room.forge.read_file(OWNER, NAME, "again", "two") == "two\n"
    head = await room.publishing.head(again)
    assert (head.commits_ahead, head.files_changed) == (2, 2)
    assert await room.removal.remove(OWNER, NAME, "again") is None


async def test_commits_alone_are_published_without_another(room: Room) -> None:
    by_claude = commit(await room.start("job"), "one")
    kept = await leave(room)
    again = await resume_or_start(room, kept)
    assert await room.publish(again) == by_claude
    assert room.remote()["again"] == by_claude


async def test_another_machine_makes_one_commit_of_the_patch(room: Room, elsewhere: Room) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    (worktree.path / "README.md").unlink()
    kept = await leave(room)
    again = await resume_or_start(elsewhere, kept)
    assert as_claude(again.path, "status", "--porcelain") == "D  README.md\nA  one"
    await elsewhere.publish(again, "All of it")
    assert room.remote_log("again") == ["All of it", "Initial commit"]
    assert (await elsewhere.publishing.head(again)).files_changed == 2


async def test_it_is_found_again_as_it_was_left(room: Room) -> None:
    (await room.start("job")).path.joinpath("new").write_text("x")
    kept = await leave(room)
    again = await resume_or_start(room, kept)
    (again.path / "more").write_text("y")
    assert await resume_or_start(room, replace(kept, patch=None)) == again
    assert (again.path / "more").read_text() == "y"


async def test_a_half_made_one_is_made_again(room: Room) -> None:
    (await room.start("job")).path.joinpath("new").write_text("x")
    kept = await leave(room)
    again = await resume_or_start(room, kept)
    (again.path / "new").unlink()
    again.path.with_name("again.json").unlink()
    assert await room.worktrees.find(OWNER, NAME, "again") is None
    assert await resume_or_start(room, kept) == again
    assert as_claude(again.path, "status", "--porcelain") == "A  new"


async def test_an_unpublished_one_is_kept_in_turn(room: Room) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    (worktree.path / "two").write_text("two\n")
    kept = await leave(room)
    await resume_or_start(room, kept)
    kept_again = await room.removal.remove(OWNER, NAME, "again")
    assert kept_again is not None
    assert (kept_again.base_sha, kept_again.patch) == (kept.base_sha, kept.patch)


async def test_commits_beside_the_line_that_was_checked_out_are_named(room: Room) -> None:
    worktree = await room.start("job")
    on_branch = commit(worktree, "one")
    as_claude(worktree.path, "checkout", "--quiet", "--detach", worktree.base_sha)
    checked_out = commit(worktree, "two")
    kept = await leave(room)
    again = await resume_or_start(room, kept)
    [notice] = again.notices
    assert as_claude(again.path, "rev-parse", "HEAD") == checked_out
    assert on_branch[:12] in notice
    assert checked_out[:12] not in notice
    assert "refs/orchestrator/salvage/job" in notice
    found = await room.worktrees.find(OWNER, NAME, "again")
    assert found is not None
    assert found.notices == (notice,)


async def test_what_was_kept_before_is_named_too(room: Room) -> None:
    worktree = await room.start("job")
    (worktree.path / "one").write_text("1")
    earlier = await room.salvage.keep(worktree)
    (worktree.path / "one").unlink()
    (worktree.path / "two").write_text("2")
    kept = await leave(room)
    again = await resume_or_start(room, kept)
    assert as_claude(again.path, "status", "--porcelain") == "A  two"
    assert str(earlier)[:12] in again.notices[0]


@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
async def test_a_merge_left_with_conflicts_is_told(room: Room, elsewhere: Room, here: bool) -> None:
    markers = "<<<<<<< ours\n=======\n>>>>>>> theirs\n"
    room.forge.commit(OWNER, NAME, "main", {"manual.md": markers}, "Explain conflicts")
    worktree = await room.start("job")
    commit(worktree, "clash")
    as_claude(worktree.path, "checkout", "--quiet", "-b", "side", worktree.base_sha)
    (worktree.path / "clash").write_text("other\n")
    as_claude(worktree.path, "add", "clash")
    as_claude(worktree.path, "commit", "--quiet", "-m", "Other")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "side")
    side = as_claude(worktree.path, "rev-parse", "side")
    kept = await leave(room)
    again = await resume_or_start(room if here else elsewhere, kept)
    *others, notice = again.notices
    assert "conflicts" in notice
    assert notice.endswith(": clash.")
    # A patch has nothing of the branch that was to be merged.
    assert [side[:12] in other for other in others] == [True] * here


async def leave_an_earlier_state(room: Room, elsewhere: Room) -> Salvaged:
    """Let this machine keep the beginning of what another one finished; return the latter."""
    commit(await room.start("job"), "one")
    await leave(room)
    worktree = await elsewhere.start("job")
    for name in ("one", "two"):
        commit(worktree, name)
    return await leave(elsewhere)


async def test_an_earlier_state_of_it_is_not_taken_for_it(room: Room, elsewhere: Room) -> None:
    kept = await leave_an_earlier_state(room, elsewhere)
    again = await resume_or_start(room, kept)
    assert as_claude(again.path, "status", "--porcelain") == "A  one\nA  two"
    await room.publish(again)
    assert room.forge.read_file(OWNER, NAME, "again", "two") == "two\n"


async def test_an_earlier_state_does_not_stand_in_for_a_long_patch(
    room: Room, elsewhere: Room
) -> None:
    kept = await leave_an_earlier_state(room, elsewhere)
    failure = await refusal(room, replace(kept, patch=None))
    assert failure.code is FailureCode.KEPT_WORK_GONE
    assert kept.head_sha in failure.message
    assert await room.salvage.kept(OWNER, NAME, "job") not in (None, kept)


async def test_going_back_to_look_does_not_split_the_work(room: Room) -> None:
    worktree = await room.start("job")
    by_claude = commit(worktree, "one")
    as_claude(worktree.path, "checkout", "--quiet", "--detach", worktree.base_sha)
    kept = await leave(room)
    again = await resume_or_start(room, kept)
    assert again.notices == ()
    assert await room.publish(again) == by_claude


async def test_work_that_is_nowhere_is_said_to_be_gone(room: Room) -> None:
    failure = await refusal(room, patched(room, None))
    assert failure.code is FailureCode.KEPT_WORK_GONE
    assert not failure.transient


async def test_a_base_that_is_gone_from_the_remote(room: Room) -> None:
    failure = await refusal(room, Salvaged(ORIGINAL, ORIGINAL, ""))
    assert failure.code is FailureCode.KEPT_WORK_GONE
    assert ORIGINAL in failure.message


async def test_a_base_that_no_branch_has_any_more(room: Room, elsewhere: Room) -> None:
    base = room.forge.commit(OWNER, NAME, "side", {"side": "x"}, "Side")
    (await room.start("job", "feature/x", "side")).path.joinpath("new").write_text("x")
    kept = await leave(room)
    assert kept.base_sha == base
    room.forge.repository(OWNER, NAME).bare.delete("side")
    again = await resume_or_start(elsewhere, kept)
    assert (again.path / "side").exists()


@pytest.mark.parametrize("branch", ["main", "main/x"])
async def test_a_branch_the_remote_has_or_forbids(room: Room, branch: str) -> None:
    (await room.start("job")).path.joinpath("new").write_text("x")
    kept = await leave(room)
    failure = await refusal(room, kept, branch=branch)
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
async def test_a_hostile_patch_is_refused_and_touches_nothing(room: Room, patch: str) -> None:
    failure = await refusal(room, patched(room, patch))
    assert failure.code is FailureCode.GIT_FAILED
    assert not [file for file in room.directory.parent.rglob("*") if "outside" in file.name]


async def test_links_of_the_repository_are_not_followed(room: Room, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    author = tmp_path / "author"
    as_claude(tmp_path, "clone", "-q", str(room.forge.root / OWNER / f"{NAME}.git"), str(author))
    (author / "link").symlink_to(victim)
    as_claude(author, "add", ".")
    as_claude(author, "commit", "-q", "-m", "Link")
    as_claude(author, "push", "-q", "origin", "HEAD:main")
    failure = await refusal(room, patched(room, new_file("link/file")))
    assert failure.code is FailureCode.GIT_FAILED
    assert list(victim.iterdir()) == []


async def test_a_patch_runs_nothing_that_a_job_has_planted(room: Room, tmp_path: Path) -> None:
    mirror = await room.mirrors.fetch(OWNER, NAME)
    proof = tmp_path / "proof"
    as_claude(mirror.path, "config", "filter.evil.smudge", f"touch {proof}")
    as_claude(mirror.path, "config", "filter.evil.clean", f"touch {proof}")
    patch = new_file(".gitattributes", "* filter=evil") + new_file("x")
    again = await resume_or_start(room, patched(room, patch))
    assert (again.path / "x").read_text() == "evil"
    await room.publishing.commit_all(again, "Deliver", CLAUDE)
    assert not proof.exists()
