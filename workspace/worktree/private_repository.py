"""The private git repository of a job, the only one that Claude can change.

It borrows the objects of the mirror, which Claude sees read-only, and has its own index, refs,
configuration and stash. Commits reach the mirror as a pack; see `crossing`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from workspace.git.refs import HEADS, SHA
from workspace.git.runner import GitError
from workspace.git.text import encode
from workspace.mirrors.mirrors import Mirror
from workspace.worktree.worktree import Worktree

_CONFIGURATION = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
[remote "origin"]
\turl = "{url}"
\tfetch = +refs/heads/*:refs/remotes/origin/*
\ttagOpt = --no-tags
[gc]
\tauto = 0
[maintenance]
\tauto = false
[submodule]
\tactive = .
{filters}"""
# What `git lfs install --local` writes.
_LFS = """\
[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
"""
_DIRECTORIES = ("objects", "objects/info", "objects/pack", "refs", "refs/heads", "info")
_FILES = ("index", "packed-refs")
_UNWANTED = (
    "commondir", "config.worktree", "info/attributes", "info/exclude", "info/grafts",
    "objects/info/commit-graph", "objects/info/commit-graphs", "shallow",
)  # fmt: skip
"""Git obeys these files beside its configuration (gitrepository-layout(5))."""

_LARGE = ("objects/", "lfs/", "modules/")
"""Directories whose files can have any size. Git reads the other files into memory."""
_MAX_FILE = 1 << 30
_MAX_SMALL = 64 * 1024
_RULES = (".gitattributes", ".gitignore", ".gitmodules")
_MAX_RULES = 100 << 20
"""Git 2.39 reads these files of a worktree into memory, 1 TiB as well (measured)."""
_HEAD = re.compile(rf"ref: refs/\S+\n|({SHA.pattern})\n")


class BrokenRepository(JobFailure):
    """A job left its repository in a state that git cannot or must not work with."""

    def __init__(self, particulars: str) -> None:
        super().__init__(
            FailureCode.GIT_FAILED,
            "The job left its git repository in a state that git does not accept, so nothing was "
            f"published. The files are kept. Retry the job. {particulars}",
        )


class RepositoryError(GitError):
    """A git command on a job's repository failed."""


@contextlib.contextmanager
def repository_errors() -> Iterator[None]:
    """Raise `RepositoryError` for the commands of a block, which work on a job's repository."""
    try:
        yield
    except GitError as error:
        raise RepositoryError(error.arguments, error.exit_code, error.stderr) from error


def make(
    worktree: Worktree, mirror: Mirror, sha: str, tracking: Mapping[str, str], *, lfs: bool
) -> None:
    """Make the repository of a worktree, without an index.

    Args:
        worktree: has no repository yet.
        mirror: whose lock is held.
        sha: the commit that the job's branch or the detached HEAD is at.
        tracking: the sha of every branch of the remote, by `refs/remotes/origin/<branch>`.
        lfs: whether git-lfs is installed.
    """
    git_dir = worktree.git_dir
    git_dir.mkdir(parents=True)
    rows = [f"{commit} {name}\n" for name, commit in sorted(tracking.items())]
    # Without traits in the first line, git sorts and peels by itself.
    _put(git_dir, "packed-refs", "".join(rows))
    if worktree.branch is not None:
        _put(git_dir, f"{HEADS}{worktree.branch}", f"{sha}\n")
    _put(git_dir, "HEAD", _head(worktree, sha))
    _restore_settings(git_dir, mirror, lfs=lfs)


def restore(worktree: Worktree, mirror: Mirror, *, lfs: bool) -> None:
    """Restore the files that git obeys, and delete those that git could wait for. Idempotent.

    Afterwards git runs no program that a job has named. Call it while holding the worktree's lock
    and after Claude has ended: the locks of git are then leftovers of killed commands.

    Raises:
        OSError: the disk refused, or a job left something that cannot be replaced.
        UnsafeFile: a job left something that cannot be replaced.
    """
    _remove_odd_files(worktree.git_dir)
    for name in _FILES:
        if files.is_directory(worktree.git_dir, name):
            files.remove(worktree.git_dir, name)
    _restore_settings(worktree.git_dir, mirror, lfs=lfs)
    _restore_branch(worktree)
    if worktree.path.is_dir():
        _remove_obstacles(worktree.path)
    restore_pointers(worktree)


def restore_pointers(worktree: Worktree) -> None:
    """Restore `.git` and HEAD where a power cut emptied them or a job deleted them.

    A HEAD that git can read stays. Any other is replaced by the job's branch, without touching
    the files.
    """
    if worktree.path.is_dir() and not files.is_directory(worktree.path, ".git"):
        _put(worktree.path, ".git", f"gitdir: {worktree.git_dir}\n")
    head = files.read_text(worktree.git_dir, "HEAD", limit=_MAX_SMALL)
    if head is None or _HEAD.fullmatch(head) is None:
        _put(worktree.git_dir, "HEAD", _head(worktree, worktree.base_sha))


def branch_in(git_dir: Path) -> str | None:
    """Return the branch that a repository has checked out, or None."""
    head = files.read_text(git_dir, "HEAD", limit=_MAX_SMALL) if git_dir.is_dir() else None
    found = re.fullmatch(rf"ref: {HEADS}(\S+)\n", head or "")
    return found[1] if found else None


def _restore_settings(git_dir: Path, mirror: Mirror, *, lfs: bool) -> None:
    for name in _DIRECTORIES:
        files.make_directory(git_dir, name)
    url = mirror.url.replace("\\", "\\\\").replace('"', '\\"')
    _put(git_dir, "config", _CONFIGURATION.format(url=url, filters=_LFS if lfs else ""))
    _put(git_dir, "objects/info/alternates", f"{mirror.objects}\n")
    for name in _UNWANTED:
        files.remove(git_dir, name)


def _remove_odd_files(git_dir: Path) -> None:
    """Delete locks, and links, pipes and huge files, none of which git makes here."""
    for name, entry in files.below(git_dir):
        if entry.is_dir(follow_symlinks=False):
            continue
        is_lock = name.endswith(".lock") and (name.startswith("refs/") or "/" not in name)
        is_odd = not entry.is_file(follow_symlinks=False)
        if is_lock or is_odd or not name.startswith(_LARGE) and _size(entry) > _MAX_FILE:
            files.remove(git_dir, name)


def _size(entry: os.DirEntry[str]) -> int:
    return entry.stat(follow_symlinks=False).st_size


def _remove_obstacles(work_tree: Path) -> None:
    """Delete files that git cannot commit but opens, such as a pipe by the name `.gitignore`."""
    for name, entry in files.below(work_tree):
        if entry.is_file(follow_symlinks=False):
            is_obstacle = entry.name in _RULES and _size(entry) > _MAX_RULES
        else:
            is_obstacle = not entry.is_dir(follow_symlinks=False) and not entry.is_symlink()
        if is_obstacle:
            files.remove(work_tree, name)


def _restore_branch(worktree: Worktree) -> None:
    """Set the job's branch to its base commit where a power cut emptied its file."""
    name = f"{HEADS}{worktree.branch}"
    if worktree.branch is not None and files.is_file(worktree.git_dir, name):
        ref = files.read_text(worktree.git_dir, name, limit=_MAX_SMALL)
        if ref is None or _HEAD.fullmatch(ref) is None:
            _put(worktree.git_dir, name, f"{worktree.base_sha}\n")


def _head(worktree: Worktree, sha: str) -> str:
    return f"{sha}\n" if worktree.branch is None else f"ref: {HEADS}{worktree.branch}\n"


def _put(root: Path, name: str, wanted: str) -> None:
    if files.read_text(root, name, limit=_MAX_SMALL) != wanted:
        files.write(root, name, encode(wanted), mode=0o644)
