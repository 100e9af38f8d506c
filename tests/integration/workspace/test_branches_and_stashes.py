"""Work on branches, tags, stashes and rewritten history is published or kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, Host, as_claude
from workspace.salvage import salvage
from workspace.worktree.worktree import Worktree


def commit(worktree: Worktree, name: str, text: str = "x\n", *options: str) -> str:
    """Commit one file as Claude, and return the sha."""
    (worktree.path / name).write_text(text)
    as_claude(worktree.path, "add", name)
    as_claude(worktree.path, "commit", "--quiet", "-m", f"Claude: {name}", *options)
    return as_claude(worktree.path, "rev-parse", "HEAD")


def stash(worktree: Worktree, name: str) -> str:
    (worktree.path / name).write_text(f"{name}\n")
    as_claude(worktree.path, "stash", "--include-untracked")
    return as_claude(worktree.path, "rev-parse", "refs/stash")


async def kept_parents(host: Host) -> list[str]:
    """Remove the worktree of the job, and return the parents of its salvage commit."""
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    return as_claude(host.mirror_path, "log", "-1", "--format=%P", kept.head_sha).split()


def contains_commit(host: Host, sha: str, newer: str) -> bool:
    return sha in as_claude(host.mirror_path, "rev-list", newer).split()


async def test_each_job_has_its_own_stash(host: Host) -> None:
    worktree, other = await host.start("job"), await host.start("other")
    (worktree.path / "README.md").write_text("changed\n")
    (worktree.path / "new").write_text("x")
    as_claude(worktree.path, "stash", "--include-untracked")
    assert as_claude(worktree.path, "status", "--short") == ""
    assert as_claude(other.path, "stash", "list") == ""
    as_claude(worktree.path, "stash", "pop")
    assert as_claude(worktree.path, "status", "--short") == "M README.md\n?? new"
    await host.publish(worktree)
    assert await host.removal.remove(OWNER, NAME, "job") is None


async def test_stash_entries_are_kept_and_reported(host: Host) -> None:
    worktree = await host.start("job")
    first, second = stash(worktree, "first"), stash(worktree, "second")
    sha = commit(worktree, "one")
    assert await host.publish(worktree) == sha
    left = await host.publishing.left_out(worktree, sha)
    assert left == {"stash@{0}": second, "stash@{1}": first}
    assert await kept_parents(host) == [sha, second, first]
    untracked = as_claude(host.mirror_path, "show", f"{first}^3:first")
    assert untracked == "first"


async def test_stash_without_other_work_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    entry = stash(worktree, "only")
    assert await kept_parents(host) == [worktree.base_sha, entry]


async def test_stash_without_a_reflog_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    entry = stash(worktree, "only")
    (worktree.git_dir / "logs/refs/stash").unlink()
    assert await host.publishing.left_out(worktree, worktree.base_sha) == {"stash": entry}
    assert await kept_parents(host) == [worktree.base_sha, entry]


async def test_dropped_stash_entry_is_not_kept(host: Host) -> None:
    worktree = await host.start("job")
    kept, dropped = stash(worktree, "kept"), stash(worktree, "dropped")
    as_claude(worktree.path, "stash", "drop")
    lines = await kept_parents(host)
    assert kept in lines
    assert dropped not in lines


async def test_branches_and_tags_are_kept_and_reported(host: Host) -> None:
    worktree = await host.start("job")
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
    left = await host.publishing.left_out(worktree, first)
    assert left == {"idea": idea, "refs/tags/so-far": tagged}
    assert sorted(await kept_parents(host)) == sorted([first, idea, tagged])


async def test_branches_of_the_remote_are_not_reported(host: Host) -> None:
    host.github.commit(OWNER, NAME, "theirs", {"theirs": "x"}, "Theirs")
    worktree = await host.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "theirs")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    assert as_claude(worktree.path, "branch", "--format=%(refname:short)").split() == [
        "feature/job",
        "theirs",
    ]
    assert await host.publishing.left_out(worktree, worktree.base_sha) == {}
    assert await host.removal.remove(OWNER, NAME, "job") is None


async def test_more_branches_than_fit_on_a_command_line(host: Host) -> None:
    worktree = await host.start("job")
    sha = commit(worktree, "one")
    rows = "".join(f"create refs/heads/many/{number} {sha}\n" for number in range(20_000))
    (worktree.git_dir / "rows").write_text(rows)
    as_claude(
        worktree.path, "-c", f"alias.x=!git update-ref --stdin < {worktree.git_dir}/rows", "x"
    )
    as_claude(worktree.path, "reset", "--quiet", "--hard", "HEAD~1")
    left = await host.publishing.left_out(worktree, worktree.base_sha)
    assert len(left) == 20_000
    assert await kept_parents(host) == [worktree.base_sha, sha]


async def test_repository_with_too_many_branches_is_moved_aside(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "_MAX_PARENTS", 2)
    worktree = await host.start("job")
    for name in ("one", "two"):
        as_claude(worktree.path, "checkout", "--quiet", "-b", name, worktree.base_sha)
        commit(worktree, name)
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    commit(worktree, "three")
    assert await kept_parents(host) == [worktree.base_sha]
    assert "+++ b/three" in (await host.patch() or "")
    [repository] = host.worktrees.orphaned.iterdir()
    assert as_claude(repository, "log", "-1", "--format=%s", "two") == "Claude: two"


async def test_detached_head_is_published_and_kept(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "--detach")
    sha = commit(worktree, "one")
    assert await host.publish(worktree) == sha
    later = commit(worktree, "two")
    assert await kept_parents(host) == [later]


async def test_autostash_of_an_unfinished_rebase_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    for text in ("one\n", "two\n"):
        commit(worktree, "README.md", text)
    before = as_claude(worktree.path, "rev-parse", "HEAD")
    (worktree.path / "src" / "app.py").write_text("set aside\n")
    with pytest.raises(AssertionError, match="could not apply"):
        as_claude(worktree.path, "rebase", "--autostash", "--onto", "HEAD~2", "HEAD~1")
    as_claude(worktree.path, "reset", "--hard")
    with pytest.raises(JobFailure, match="left a rebase unfinished"):
        await host.commit(worktree)
    lines = await kept_parents(host)
    assert before in lines
    shown = [as_claude(host.mirror_path, "show", f"{each}:src/app.py") for each in lines]
    assert "set aside" in shown


async def test_autostash_of_an_unfinished_merge_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "checkout", "--quiet", "-b", "side")
    side = commit(worktree, "README.md", "side\n")
    as_claude(worktree.path, "checkout", "--quiet", "feature/job")
    ours = commit(worktree, "README.md", "ours\n")
    (worktree.path / "src" / "app.py").write_text("set aside\n")
    with pytest.raises(AssertionError):
        as_claude(worktree.path, "merge", "--autostash", "side")
    lines = await kept_parents(host)
    assert {ours, side} <= {*lines}
    shown = [as_claude(host.mirror_path, "show", f"{each}:src/app.py") for each in lines]
    assert "set aside" in shown


def fetch(host: Host, worktree: Worktree) -> None:
    """Fetch the remote as Claude, into the job's repository."""
    url, origin = f"{host.github.url}/{OWNER}/{NAME}.git", host.github.root / OWNER / f"{NAME}.git"
    as_claude(worktree.path, "-c", f"url.{origin}.insteadOf={url}", "fetch", "--quiet", "origin")


@pytest.mark.parametrize("with_more", [False, True], ids=["merge", "merge and edits"])
async def test_merge_of_fetched_commits_is_published(host: Host, with_more: bool) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    newer = host.github.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    fetch(host, worktree)
    as_claude(worktree.path, "merge", "--quiet", "-m", "Merge main", "origin/main")
    if with_more:
        (worktree.path / "more").write_text("x")
    assert not await host.mirrors.has_commit(host.mirrors.mirror(OWNER, NAME), newer)
    sha = await host.publish(worktree)
    assert contains_commit(host, newer, sha)
    assert host.github.read_file(OWNER, NAME, "feature/job", "newer") == "x"
    as_claude(host.mirror_path, "fsck", "--full", "--strict")
    assert await host.removal.remove(OWNER, NAME, "job") is None


async def test_merge_of_fetched_commits_is_kept(host: Host) -> None:
    worktree = await host.start("job")
    host.github.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    fetch(host, worktree)
    as_claude(worktree.path, "merge", "--quiet", "origin/main")
    (worktree.path / "more").write_text("x")
    head = as_claude(worktree.path, "rev-parse", "HEAD")
    assert await kept_parents(host) == [head]


async def test_rebased_branch_is_published(host: Host) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    commit(worktree, "two")
    newer = host.github.commit(OWNER, NAME, "main", {"newer": "x"}, "Newer")
    fetch(host, worktree)
    as_claude(worktree.path, "rebase", "--quiet", "origin/main")
    await host.publish(worktree)
    assert host.remote_log("feature/job") == [
        "Claude: two", "Claude: one", "Newer", "Initial commit",
    ]  # fmt: skip
    assert contains_commit(host, newer, host.remote()["feature/job"])


async def test_amended_commit_replaces_the_original(host: Host) -> None:
    worktree = await host.start("job")
    earlier = commit(worktree, "one")
    amended = commit(worktree, "one", "better\n", "--amend")
    assert await host.publish(worktree) == amended
    assert host.remote_log("feature/job") == ["Claude: one", "Initial commit"]
    assert not await host.mirrors.has_commit(host.mirrors.mirror(OWNER, NAME), earlier)


async def test_history_is_published_after_gc(host: Host) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    as_claude(worktree.path, "gc", "--quiet", "--prune=now")
    as_claude(worktree.path, "commit-graph", "write", "--reachable")
    commit(worktree, "two")
    await host.publish(worktree)
    assert host.remote_log("feature/job") == ["Claude: two", "Claude: one", "Initial commit"]


def replace(worktree: Worktree, sha: str) -> None:
    as_claude(worktree.path, "replace", "--graft", sha, worktree.base_sha)


def graft(worktree: Worktree, sha: str) -> None:
    (worktree.git_dir / "info/grafts").write_text(f"{sha} {worktree.base_sha}\n")


def shallow(worktree: Worktree, sha: str) -> None:
    (worktree.git_dir / "shallow").write_text(f"{sha}\n")


@pytest.mark.parametrize("hide_history", [replace, graft, shallow])
async def test_replaced_or_grafted_history_is_published_unchanged(
    host: Host, hide_history: Callable[[Worktree, str], None]
) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    commit(worktree, "two")
    hide_history(worktree, commit(worktree, "three"))
    shown = as_claude(worktree.path, "log", "--format=%s").splitlines()
    assert len(shown) < 4
    sha = await host.publish(worktree)
    assert host.remote_log("feature/job") == [
        "Claude: three", "Claude: two", "Claude: one", "Initial commit",
    ]  # fmt: skip
    assert (await host.publishing.head(worktree)).commits_ahead == 3
    assert sha == host.remote()["feature/job"]


def set_bare(worktree: Worktree) -> None:
    as_claude(worktree.path, "config", "core.bare", "true")


def set_other_work_tree(worktree: Worktree) -> None:
    other = worktree.git_dir / "other"
    other.mkdir()
    (other / "secret").write_text("x")
    as_claude(worktree.path, "config", "core.worktree", str(other))


def set_ignore_rules(worktree: Worktree) -> None:
    as_claude(worktree.path, "config", "core.excludesFile", "/dev/stdin")
    as_claude(worktree.path, "config", "core.sparseCheckout", "true")
    (worktree.git_dir / "info/sparse-checkout").write_text("/README.md\n")
    (worktree.git_dir / "info/exclude").write_text("*\n")


@pytest.mark.parametrize("set_up", [set_bare, set_other_work_tree, set_ignore_rules])
async def test_configuration_of_the_job_does_not_change_the_published_files(
    host: Host, set_up: Callable[[Worktree], None]
) -> None:
    worktree = await host.start("job")
    commit(worktree, "one")
    (worktree.path / "two").write_text("2")
    set_up(worktree)
    assert await host.worktrees.changed_paths(worktree) == ["one", "two"]
    sha = await host.publish(worktree)
    names = as_claude(host.mirror_path, "ls-tree", "-r", "--name-only", sha).splitlines()
    assert names == [".gitignore", "README.md", "one", "src/app.py", "two"]
