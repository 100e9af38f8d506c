from __future__ import annotations

import shutil

import pytest

from domain.errors import JobFailure
from tests.integration.workspace.conftest import NAME, OWNER, REGISTERED, Host, as_claude

PART = {"part.py": "part\n"}


def add_submodule(
    host: Host, url: str, path: str = "libs/part", *, to: str = NAME, part: str = "Part"
) -> str:
    """Add a submodule to the main branch of `to`, and return the submodule's commit."""
    scratch = host.directory / "author"
    shutil.rmtree(scratch, ignore_errors=True)
    origin = host.github.root / OWNER / f"{to}.git"
    as_claude(host.directory, "clone", "--quiet", str(origin), str(scratch))
    head = host.github.branches(OWNER, part)["main"]
    as_claude(scratch, "update-index", "--add", "--cacheinfo", f"160000,{head},{path}")
    as_claude(scratch, "config", "-f", ".gitmodules", f"submodule.{path}.path", path)
    as_claude(scratch, "config", "-f", ".gitmodules", f"submodule.{path}.url", url)
    as_claude(scratch, "add", ".gitmodules")
    as_claude(scratch, "commit", "-m", "Add a submodule")
    as_claude(scratch, "push", "--quiet", "origin", "main")
    return head


@pytest.mark.parametrize(
    "address", ["{url}/Acme/Part.git", "../Part.git", "git@127.0.0.1:Acme/Part"]
)
async def test_submodule_of_the_same_server_is_checked_out(host: Host, address: str) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    part = add_submodule(host, address.format(url=host.github.url))
    worktree = await host.start("job")
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/part.py").read_text() == "part\n"
    assert as_claude(worktree.path, "submodule", "status").split()[0] == part
    assert await host.worktrees.changed_paths(worktree) == []


async def test_worktree_with_a_submodule_is_published_and_removed(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, "../Part.git")
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    await host.publish(worktree)
    head = await host.publishing.head(worktree)
    assert (head.commits_ahead, head.files_changed) == (1, 1)
    await host.removal.remove(OWNER, NAME, "job")
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    await host.start("job2", "feature/x")


async def test_two_jobs_check_out_the_same_submodule(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, "../Part.git")
    for job_id in ("job1", "job2"):
        worktree = await host.start(job_id)
        assert (worktree.path / "libs/part/part.py").exists()


async def test_missing_submodule_gives_a_notice(
    host: Host,
) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, "../Secret.git")
    worktree = await host.start("job")
    [notice] = worktree.notices
    assert "submodules are missing" in notice
    assert "register the repositories of private submodules" in notice
    assert (worktree.path / "README.md").exists()
    assert await host.worktrees.find(OWNER, NAME, "job") == worktree


async def test_submodule_server_error_is_transient(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, "../Part.git")
    await host.mirrors.fetch(OWNER, NAME)
    host.github.fail_next("/Acme/Part.git/*", 502, times=9)
    with pytest.raises(JobFailure) as caught:
        await host.start("job")
    assert caught.value.transient
    host.github.clear_faults()
    worktree = await host.start("job")
    assert (worktree.path / "libs/part/part.py").exists()


async def test_submodule_with_a_local_path_is_not_read(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, str(host.github.root / OWNER / "Part.git"))
    worktree = await host.start("job")
    assert "submodules are missing" in worktree.notices[0]
    assert not (worktree.path / "libs/part/part.py").exists()


async def test_nested_submodules_are_checked_out(host: Host) -> None:
    for name in ("Part", "Bolt"):
        host.github.create_repository(OWNER, name, {f"{name}.py": f"{name}\n"})
    add_submodule(host, "../Bolt.git", "bolt", to="Part", part="Bolt")
    add_submodule(host, "../Part.git")
    worktree = await host.start("job")
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/bolt/Bolt.py").read_text() == "Bolt\n"
    assert await host.worktrees.changed_paths(worktree) == []
    assert await host.removal.remove(OWNER, NAME, "job") is None


async def test_later_job_gets_the_current_submodule_commit_and_url(host: Host) -> None:
    for name in ("Part", "Other"):
        host.github.create_repository(OWNER, name, PART)
    add_submodule(host, "../Part.git")
    await host.start("before")
    host.github.commit(OWNER, "Part", "main", {"part.py": "newer\n"}, "Newer")
    add_submodule(host, "../Part.git")
    newer = await host.start("newer")
    assert (newer.path / "libs/part/part.py").read_text() == "newer\n"
    host.github.commit(OWNER, "Other", "main", {"part.py": "elsewhere\n"}, "Elsewhere")
    add_submodule(host, "../Other.git", part="Other")
    elsewhere = await host.start("elsewhere")
    assert (elsewhere.path / "libs/part/part.py").read_text() == "elsewhere\n"
    assert (newer.path / "libs/part/part.py").read_text() == "newer\n"
    assert [worktree.notices for worktree in (newer, elsewhere)] == [(), ()]


async def test_kept_work_with_a_submodule_is_restored(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, "../Part.git")
    worktree = await host.start("job")
    newer = host.github.commit(OWNER, "Part", "main", {"part.py": "newer\n"}, "Newer")
    part = host.github.root / OWNER / "Part.git"
    as_claude(worktree.path / "libs/part", "fetch", "--quiet", str(part), "main")
    as_claude(worktree.path / "libs/part", "checkout", "--quiet", newer)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    again = await host.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch, REGISTERED
    )
    assert (again.path / "libs/part/part.py").read_text() == "newer\n"
    sha = await host.publish(again)
    assert as_claude(host.mirror_path, "rev-parse", f"{sha}:libs/part") == newer
