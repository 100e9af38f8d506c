"""Stage all files of a worktree."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from sandbox import files
from workspace.git.gitlinks import gitlinks, is_checked_out
from workspace.git.runner import TREE_SECONDS, Git, GitLocation
from workspace.git.status import status_of

_MAX_CONFIGURATION = 1 << 20


async def stage_everything(git: Git, place: GitLocation, *, lenient: bool = False) -> None:
    """Stage all new, changed and deleted files, except ignored ones.

    The files of a repository that was created in the worktree with `git init` are staged as plain
    files. `git add` would fail on it, or add a gitlink to an unknown commit. Clones and worktrees
    of other repositories are left out, because they are copies and not the job's work. Clones have
    a remote, and worktrees have their git directory outside.

    Args:
        git: runs the commands.
        place: the worktree and the index.
        lenient: whether to skip files that cannot be read.
    """
    nested = (await status_of(git, place)).nested
    links = await gitlinks(git, place)
    await stage(git, place, nested, links, lenient=lenient)


async def stage(
    git: Git,
    place: GitLocation,
    nested: Collection[str],
    links: Collection[str],
    *,
    lenient: bool = False,
) -> None:
    """Do the same as `stage_everything` when the repositories in the worktree are known.

    Args:
        git: runs the commands.
        place: the worktree and the index.
        nested: the directories of untracked repositories.
        links: the paths of gitlinks in the index.
        lenient: whether to skip files that cannot be read.
    """
    work_tree = place.work_tree
    links = [path for path in links if work_tree is not None and is_checked_out(work_tree, path)]
    await git.run(
        "add", "--all", *(["--ignore-errors"] if lenient else []),
        "--pathspec-from-file=-", "--pathspec-file-nul",
        at=place, stdin=_everything_but((*nested, *links)), timeout=TREE_SECONDS,
        accept=(0, 1) if lenient else (0,),
    )  # fmt: skip
    # `git add` would run `git status` in the submodules, which obeys their own configuration.
    if links:
        await git.run(
            "update-index", "-z", "--stdin",
            at=place, stdin=_nul_terminated(links), timeout=TREE_SECONDS,
        )  # fmt: skip
    for directory in nested:
        if place.work_tree is not None and not _is_copy(place.work_tree / directory):
            await _add_plain_files(git, place, place.work_tree / directory)


def _everything_but(directories: Iterable[str]) -> bytes:
    patterns = [":/", *(f":(top,exclude,literal){name}" for name in directories)]
    return _nul_terminated(patterns)


def _is_copy(repository: Path) -> bool:
    if files.is_file(repository, ".git"):
        return True
    configuration = files.read_text(repository, ".git/config", limit=_MAX_CONFIGURATION)
    return '[remote "' in (configuration or "")


async def _add_plain_files(git: Git, place: GitLocation, directory: Path) -> None:
    if place.work_tree is None:
        return
    found = await asyncio.to_thread(lambda: list(_files_below(directory)))
    names = [str(file.relative_to(place.work_tree)) for file in found]
    ignored = await git.run(
        "check-ignore", "-z", "--stdin", "--no-index",
        at=place, stdin=_nul_terminated(names), accept=(0, 1), timeout=TREE_SECONDS,
    )  # fmt: skip
    wanted = sorted(set(names) - set(ignored.split("\0")))
    await git.run(
        "update-index", "--add", "-z", "--stdin",
        at=place, stdin=_nul_terminated(wanted), timeout=TREE_SECONDS,
    )  # fmt: skip


def _files_below(directory: Path) -> Iterable[Path]:
    for name, entry in files.below(directory):
        if ".git" not in name.split("/") and not entry.is_dir(follow_symlinks=False):
            yield directory / name


def _nul_terminated(names: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)
