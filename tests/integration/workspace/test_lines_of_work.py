"""Everything git lets a job do in its own repository, and that all of it is published or kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, Room, as_claude
from workspace.salvage import salvage
from workspace.worktree.worktree import Worktree


def commit(worktree: Worktree, name: str, text: str = "x\n", *options: str) -> str:
    """Commit one file the way Claude does, and return the sha."""
    (worktree.path / name).write_text(text)
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "--quiet", "-m", f"Claude: {name}", *options)
    return as_claude(worktree.path, "rev-parse", "HEAD")


def stash(worktree: Worktree, name: str) -> str:
    (worktree.path / name).write_text(f"{name}\n")
    as_claude(worktree.path, "stash", "--include-untracked")
    return as_claude(worktree.path, "rev-parse", "refs/stash")


async def kept_lines(room: Room) -> list[str]:
    """Remove the worktree of the job, and return every line of what is kept of it."""
    kept = await room.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    return as_claude(room.mirror_path, "log", "-1", "--format=%P", kept.head_sha).split()


def is_in(room: Room, sha: str, newer: str) -> bool:
    return sha in as_claude(room.mirror_path, "rev-list", newer).split()


async def test_the_stash_works_and_is_the_job_s_own(room: Room) -> None:
    worktree, other = await room.start("job"), await room.start("other")
    (worktree.path / "README.md").write_text("changed\n")
    (worktree.path / "new").write_text("x")
    as_claude(worktree.path, "stash", "--include-untracked")
    assert as_claude(worktree.path, "status", "--short") == ""
    assert as_claude(other.path, "stash", "list") == ""
    as_claude(worktree.path, "stash", "pop")
    assert as_claude(worktree.path, "status", "--short") == "M README.md\n?? new"
    await room.publish(worktree)
    assert await room.removal.remove(OWNER, NAME, "job") is None


async def test_what_is_left_in_the_stash_is_kept_and_named(room: Room) -> None:
    worktree = await room.start("job")
    first, second = stash(worktree, "first"), stash(worktree, "second")
    sha = commit(worktree, "one")
    assert await room.publish(worktree) == sha
    left = await room.publishing.left_out(worktree, sha)
    assert left == {"stash@{0}": second, "stash@{1}": first}
    assert await kept_lines(room) == [sha, second, first]
    untracked = as_claude(room.mirror_path, "show", f"{first}^3:first")
    assert untracked == "first"


async def test_a_stash_is_all_there_is(room: Room) -> None:
    worktree = await room.start("job")
    entry = stash(worktree, "only")
    assert await kept_lines(room) == [worktree.base_sha, entry]


async def test_a_stash_without_its_log_is_kept_too(room: Room) -> None:
    worktree = await room.start("job")
    entry = stash(worktree, "only")
    (worktree.git_dir / "logs/refs/stash").unlink()
    assert await room.publishing.left_out(worktree, worktree.base_sha) == {"stash": entry}
    assert await kept_lines(room) == [worktree.base_sha, entry]


async def test_an_entry_that_was_taken_out_is_not_kept(room: Room) -> None:
    worktree = await room.start("job")
    kept, dropped = stash(worktree, "kept"), stash(worktree, "dropped")
    as_claude(worktree.path, "stash", "drop")
    lines = await kept_lines(room)
    assert kept in lines
    assert dropped not in lines


async def test_several_branches_and_tags_are_kept_and_named(room: Room) -> None:
    worktree = await room.start("job")
    first = commit(worktree, "one")
    as_claude(worktree.path, "checkout", "--quiet", "-b", "idea", worktree.base_sha)
    idea = commit(worktree, "idea")
    as_claude(worktree.path, "checkout", "--quiet", "-b", "tagged", worktree.base_sha)
    tagged = commit(worktree, "tagged")
    as_claude(worktree.path, "tag", "-a", "-m", "So far", "so-far")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    as_claude(worktree.path, "branch", "-D", "tagged")
    as_claude(worktree.path, "branch", "same-as-the-base", worktree.base_sha)
    as_claude(worktree.path, "branch", "part-of-it", "HEAD")
    left = await room.publishing.left_out(worktree, first)
    assert left == {"idea": idea, "refs/tags/so-far": tagged}
    assert sorted(await kept_lines(room)) == sorted([first, idea, tagged])


async def test_branches_that_the_remote_has_are_not_named(room: Room) -> None:
    room.forge.commit(OWNER, NAME, "theirs", {"theirs": "x"}, "Theirs")
    worktree = await room.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "theirs")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    assert as_claude(worktree.path, "branch", "--format=%(refname:short)").split() == [
        "feature/job",
        "theirs",
    ]
    assert await room.publishing.left_out(worktree, worktree.base_sha) == {}
    assert await room.removal.remove(OWNER, NAME, "job") is None


async def test_more_lines_than_a_command_line_takes(room: Room) -> None:
    worktree = await room.start("job")
    sha = commit(worktree, "one")
    rows = "".join(f"create refs/heads/many/{number} {sha}\n" for number in range(20_000))
    (worktree.git_dir / "rows").write_text(rows)
    as_claude(
        worktree.path, "-c", f"alias.x=!git update-ref --stdin < {worktree.git_dir}/rows", "x"
    )
    as_claude(worktree.path, "reset", "--quiet", "--hard", "HEAD~1")
    left = await room.publishing.left_out(worktree, worktree.base_sha)
    assert len(left) == 20_000
    assert await kept_lines(room) == [worktree.base_sha, sha]


async def test_a_repository_with_too_many_lines_is_moved_aside(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "_MAX_PARENTS", 2)
    worktree = await room.start("job")
    for name in ("one", "two"):
        as_claude(worktree.path, "checkout", "--quiet", "-b", name, worktree.base_sha)
        commit(worktree, name)
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    commit(worktree, "three")
    assert await kept_lines(room) == [worktree.base_sha]
    assert "+++ b/three" in (await room.patch() or "")
    [repository] = room.worktrees.orphaned.iterdir()
    assert as_claude(repository, "log", "-1", "--format=%s", "two") == "Claude: two"


async def test_a_detached_head_is_published_and_kept(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "--detach")
    sha = commit(worktree, "one")
    assert await room.publish(worktree) == sha
    later = commit(worktree, "two")
    assert await kept_lines(room) == [later]


async def test_an_unfinished_rebase_is_kept_with_what_it_set_aside(room: Room) -> None:
    worktree = await room.start("job")
    for text in ("one\n", "two\n"):
        commit(worktree, "README.md", text)
    before = as_claude(worktree.path, "rev-parse", "HEAD")
    (worktree.path / "src" / "app.py").write_text("set aside\n")
    with pytest.raises(AssertionError, match="could not apply"):
        as_claude(worktree.path, "rebase", "--autostash", "--onto", "HEAD~2", "HEAD~1")
    as_claude(worktree.path, "reset", "--hard")
    with pytest.raises(JobFailure, match="left a rebase unfinished"):
        await room.commit(worktree)
    lines = await kept_lines(room)
    assert before in lines
    shown = [as_claude(room.mirror_path, "show", f"{each}:src/app.py") for each in lines]
    assert "set aside" in shown


async def test_a_merge_that_set_changes_aside_is_kept_with_them(room: Room) -> None:
    worktree = await room.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "-b", "side")
    side = commit(worktree, "README.md", "side\n")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    ours = commit(worktree, "README.md", "ours\n")
    (worktree.path / "src" / "app.py").write_text("set aside\n")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "--autostash", "side")
    lines = await kept_lines(room)
    assert {ours, side} <= {*lines}
    shown = [as_claude(room.mirror_path, "show", f"{each}:src/app.py") for each in lines]
    assert "set aside" in shown


def fetch(room: Room, worktree: Worktree) -> None:
    """Fetch the remote the way Claude does, into its own repository."""
    url, origin = f"{room.forge.url}/{OWNER}/{NAME}.git", room.forge.root / OWNER / f"{NAME}.git"
    as_claude(worktree.path, "-c", f"url.{origin}.insteadOf={url}", "fetch", "--quiet", "origin")


@pytest.mark.parametrize("with_more", [False, True], ids=["merge", "merge and edits"])
async def test_a_merge_of_what_claude_fetched_itself_is_published(
    room: Room, with_more: bool
) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    newer = room.forge.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    fetch(room, worktree)
    as_claude(worktree.path, "merge", "--quiet", "-m", "Merge main", "origin/main")
    if with_more:
        (worktree.path / "more").write_text("x")
    assert not await room.mirrors.has_commit(room.mirrors.mirror(OWNER, NAME), newer)
    sha = await room.publish(worktree)
    assert is_in(room, newer, sha)
    assert room.forge.read_file(OWNER, NAME, "feature/job", "newer") == "x"
    as_claude(room.mirror_path, "fsck", "--full", "--strict")
    assert await room.removal.remove(OWNER, NAME, "job") is None


async def test_a_merge_of_what_claude_fetched_itself_is_kept(room: Room) -> None:
    worktree = await room.start("job")
    room.forge.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    fetch(room, worktree)
    as_claude(worktree.path, "merge", "--quiet", "origin/main")
    (worktree.path / "more").write_text("x")
    head = as_claude(worktree.path, "rev-parse", "HEAD")
    assert await kept_lines(room) == [head]


async def test_a_branch_that_was_rebased_onto_a_newer_one_is_published(room: Room) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    commit(worktree, "two")
    newer = room.forge.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    fetch(room, worktree)
    as_claude(worktree.path, "rebase", "--quiet", "origin/main")
    await room.publish(worktree)
    assert room.remote_log("feature/job") == [
        "Claude: two", "Claude: one", "Newer", "Initial commit",
    ]  # fmt: skip
    assert is_in(room, newer, room.remote()["feature/job"])


async def test_an_amended_commit_is_published_and_the_earlier_one_is_not(room: Room) -> None:
    worktree = await room.start("job")
    earlier = commit(worktree, "one")
    amended = commit(worktree, "one", "better\n", "--amend")
    assert await room.publish(worktree) == amended
    assert room.remote_log("feature/job") == ["Claude: one", "Initial commit"]
    assert not await room.mirrors.has_commit(room.mirrors.mirror(OWNER, NAME), earlier)


async def test_history_that_was_packed_and_cleaned_up_is_published(room: Room) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    as_claude(worktree.path, "gc", "--quiet", "--prune=now")
    as_claude(worktree.path, "commit-graph", "write", "--reachable")
    commit(worktree, "two")
    await room.publish(worktree)
    assert room.remote_log("feature/job") == ["Claude: two", "Claude: one", "Initial commit"]


def replace(worktree: Worktree, sha: str) -> None:
    as_claude(worktree.path, "replace", "--graft", sha, worktree.base_sha)


def graft(worktree: Worktree, sha: str) -> None:
    (worktree.git_dir / "info/grafts").write_text(f"{sha} {worktree.base_sha}\n")


def shallow(worktree: Worktree, sha: str) -> None:
    (worktree.git_dir / "shallow").write_text(f"{sha}\n")


@pytest.mark.parametrize("pretend", [replace, graft, shallow])
async def test_history_is_published_as_it_is_not_as_it_is_shown(
    room: Room, pretend: Callable[[Worktree, str], None]
) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    commit(worktree, "two")
    pretend(worktree, commit(worktree, "three"))
    shown = as_claude(worktree.path, "log", "--format=%s").splitlines()
    assert len(shown) < 4
    sha = await room.publish(worktree)
    assert room.remote_log("feature/job") == [
        "Claude: three", "Claude: two", "Claude: one", "Initial commit",
    ]  # fmt: skip
    assert (await room.publishing.head(worktree)).commits_ahead == 3
    assert sha == room.remote()["feature/job"]


def bare(worktree: Worktree) -> None:
    as_claude(worktree.path, "config", "core.bare", "true")


def elsewhere(worktree: Worktree) -> None:
    other = worktree.git_dir / "other"
    other.mkdir()
    (other / "secret").write_text("x")
    as_claude(worktree.path, "config", "core.worktree", str(other))


def ignored(worktree: Worktree) -> None:
    as_claude(worktree.path, "config", "core.excludesFile", "/dev/stdin")
    as_claude(worktree.path, "config", "core.sparseCheckout", "true")
    (worktree.git_dir / "info/sparse-checkout").write_text("/README.md\n")
    (worktree.git_dir / "info/exclude").write_text("*\n")


@pytest.mark.parametrize("set_up", [bare, elsewhere, ignored])
async def test_what_is_published_is_what_is_in_the_worktree(
    room: Room, set_up: Callable[[Worktree], None]
) -> None:
    worktree = await room.start("job")
    commit(worktree, "one")
    (worktree.path / "two").write_text("2")
    set_up(worktree)
    assert await room.worktrees.changed_paths(worktree) == ["one", "two"]
    sha = await room.publish(worktree)
    names = as_claude(room.mirror_path, "ls-tree", "-r", "--name-only", sha).splitlines()
    assert names == [".gitignore", "README.md", "one", "src/app.py", "two"]
