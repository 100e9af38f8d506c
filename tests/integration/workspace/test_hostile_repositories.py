"""Private repositories with planted hooks, filters and other programs that git would run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import Host, as_claude
from workspace.worktree.worktree import Worktree

HOOKS = (
    "pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "pre-push", "post-checkout",
    "post-index-change", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman", "update",
)  # fmt: skip


def program(worktree: Worktree) -> Path:
    """Create a program that writes a file when it runs, in the sandbox or outside."""
    path = worktree.git_dir / "evil"
    path.write_text(f"#!/bin/sh\necho ran >> {worktree.git_dir}/ran\ncat\nexit 0\n")
    path.chmod(0o755)
    return path


def configuration(worktree: Worktree, url: str = "ext::%S") -> str:
    evil = program(worktree)
    return f"""
[core]
    repositoryformatversion = 0
    bare = false
    fsmonitor = {evil}
    hooksPath = {worktree.git_dir}/hooks
    sshCommand = {evil}
    editor = {evil}
    pager = {evil}
    attributesFile = {worktree.git_dir}/info/attributes
    alternateRefsCommand = {evil}
    gitProxy = {evil}
[gpg]
    program = {evil}
[commit]
    gpgSign = true
[filter "evil"]
    clean = {evil}
    smudge = {evil}
    required = true
[diff "evil"]
    command = {evil}
    textconv = {evil}
[merge "evil"]
    driver = {evil}
[credential]
    helper = {evil}
[alias]
    add = !{evil}
    commit = !{evil}
    status = !{evil}
[remote "origin"]
    url = {url}
    uploadpack = {evil}
    receivepack = {evil}
[include]
    path = {worktree.git_dir}/included
"""


def plant_configuration(worktree: Worktree) -> None:
    (worktree.git_dir / "config").write_text(configuration(worktree))
    (worktree.git_dir / "included").write_text(f"[core]\n  fsmonitor = {program(worktree)}\n")


def plant_hooks(worktree: Worktree) -> None:
    (worktree.git_dir / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        (worktree.git_dir / "hooks" / name).symlink_to(program(worktree))


def plant_configuration_of_worktree(worktree: Worktree) -> None:
    with (worktree.git_dir / "config").open("a") as file:
        file.write("[extensions]\n  worktreeConfig = true\n")
    (worktree.git_dir / "config.worktree").write_text(configuration(worktree))


def plant_common_directory(worktree: Worktree) -> None:
    """Redirect git's configuration, refs and objects (gitrepository-layout(5))."""
    common = worktree.path / "common"
    shutil.copytree(worktree.git_dir, common)
    (common / "config").write_text(configuration(worktree))
    (worktree.git_dir / "commondir").write_text(f"{common}\n")


def plant_attributes(worktree: Worktree) -> None:
    plant_configuration(worktree)
    (worktree.git_dir / "info" / "attributes").write_text("* filter=evil diff=evil merge=evil\n")


PLANTED: list[Callable[[Worktree], None]] = [
    plant_configuration,
    plant_hooks,
    plant_configuration_of_worktree,
    plant_common_directory,
    plant_attributes,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__[6:])
async def test_planted_programs_do_not_run_when_publishing(
    host: Host, plant: Callable[[Worktree], None]
):
    worktree = await host.start("job", "feature/a")
    (worktree.path / ".gitattributes").write_text("*.txt filter=evil diff=evil merge=evil\n")
    (worktree.path / "own.txt").write_text("committed by Claude\n")
    as_claude(worktree.path, "add", "--all")
    as_claude(worktree.path, "commit", "--quiet", "--message", "Own")
    (worktree.path / "left.txt").write_text("left uncommitted\n")
    plant(worktree)
    ran = worktree.git_dir / "ran"

    sha = await host.publish(worktree)

    assert not ran.exists(), ran.read_text()
    assert host.remote()["feature/a"] == sha
    assert host.remote_log("feature/a")[:2] == ["Do it", "Own"]
    copy = host.directory / "copy"
    environment = {"GIT_DIR": str(host.mirror_path), "GIT_WORK_TREE": str(copy)}
    copy.mkdir()
    as_claude(copy, "checkout", "-f", sha, "--", ".", variables=environment)
    assert (copy / "own.txt").read_text() == "committed by Claude\n"
    assert (copy / "left.txt").read_text() == "left uncommitted\n"


async def test_symlinks_in_place_of_git_files_are_not_followed(host: Host):
    """Symlinks with the names of temporary files are not followed either."""
    worktree = await host.start("job", "feature/a")
    secret = host.directory / "secret"
    secret.write_text("secret\n")
    (worktree.path / ".git").unlink()
    for name in (".git", ".git.draft", ".git-draft", ".git.tmp", ".git.lock"):
        (worktree.path / name).symlink_to(secret)
    (worktree.git_dir / "config").unlink()
    os.symlink(secret, worktree.git_dir / "config")

    await host.publish(worktree)

    assert secret.read_text() == "secret\n"
    assert not (worktree.path / ".git").is_symlink()
