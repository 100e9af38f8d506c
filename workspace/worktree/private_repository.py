"""The private git repository of a job. Claude can change no other repository.

It borrows the objects of the mirror, which Claude can only read. It has its own index, refs,
configuration and stash. Commits reach the mirror as a pack; see `mirrors.object_transfer`.
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
"""Git obeys these files in addition to its configuration (gitrepository-layout(5))."""

_LARGE_DIRECTORIES = ("objects/", "lfs/", "modules/")
"""Their files can have any size. Git reads all other files into memory."""
_MAX_FILE_BYTES = 1 << 30
_MAX_REF_BYTES = 64 * 1024
_RULE_FILES = (".gitattributes", ".gitignore", ".gitmodules")
_MAX_RULE_FILE_BYTES = 100 << 20
"""Git 2.39 reads rule files into memory at any size, even 1 TiB (measured)."""
_HEAD = re.compile(rf"ref: refs/\S+\n|({SHA.pattern})\n")


class BrokenRepository(JobFailure):
    """A job left its repository in a state that git cannot or must not work with."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            FailureCode.GIT_FAILED,
            "Nothing was published: the job left its git repository in a state that git does not "
            f"accept. Its files are kept. Retry the job. {detail}",
        )


class RepositoryError(GitError):
    """A git command on a job's repository failed."""


@contextlib.contextmanager
def repository_errors() -> Iterator[None]:
    """Raise `RepositoryError` for git errors in the block."""
    try:
        yield
    except GitError as error:
        raise RepositoryError(error.arguments, error.exit_code, error.stderr) from error


def make(
    worktree: Worktree, mirror: Mirror, sha: str, tracking: Mapping[str, str], *, lfs: bool
) -> None:
    """Create the repository of a worktree, without an index.

    The caller holds the mirror's lock.

    Args:
        worktree: has no repository yet.
        mirror: the repository to borrow objects from.
        sha: the commit of the job's branch, or of the detached HEAD.
        tracking: the commit of each branch of the remote, by `refs/remotes/origin/<branch>`.
        lfs: whether git-lfs is installed.
    """
    git_dir = worktree.git_dir
    git_dir.mkdir(parents=True)
    rows = [f"{commit} {name}\n" for name, commit in sorted(tracking.items())]
    # Without a header line, git does not rely on the order of the rows or on peeled tags.
    _put(git_dir, "packed-refs", "".join(rows))
    if worktree.branch is not None:
        _put(git_dir, f"{HEADS}{worktree.branch}", f"{sha}\n")
    _put(git_dir, "HEAD", _head(worktree, sha))
    _restore_settings(git_dir, mirror, lfs=lfs)


def restore(worktree: Worktree, mirror: Mirror, *, lfs: bool) -> None:
    """Restore the files that git obeys, and delete files that could block it. Idempotent.

    Afterwards git runs no program that a job has configured. The caller holds the worktree's lock,
    and Claude has ended. Git's lock files are then leftovers of killed commands.

    Raises:
        OSError: a disk error, or the job left a file that cannot be replaced.
        UnsafeFile: the job left a file that cannot be replaced.
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
    """Restore `.git` and HEAD if a power cut emptied them or a job deleted them. Idempotent.

    A valid HEAD stays. Otherwise HEAD becomes the job's branch. The files are not changed.
    """
    if worktree.path.is_dir() and not files.is_directory(worktree.path, ".git"):
        _put(worktree.path, ".git", f"gitdir: {worktree.git_dir}\n")
    head = files.read_text(worktree.git_dir, "HEAD", limit=_MAX_REF_BYTES)
    if head is None or _HEAD.fullmatch(head) is None:
        _put(worktree.git_dir, "HEAD", _head(worktree, worktree.base_sha))


def branch_in(git_dir: Path) -> str | None:
    """Return the branch that a repository has checked out, if any."""
    head = files.read_text(git_dir, "HEAD", limit=_MAX_REF_BYTES) if git_dir.is_dir() else None
    match = re.fullmatch(rf"ref: {HEADS}(\S+)\n", head or "")
    return match[1] if match else None


def _restore_settings(git_dir: Path, mirror: Mirror, *, lfs: bool) -> None:
    for name in _DIRECTORIES:
        files.make_directory(git_dir, name)
    url = mirror.url.replace("\\", "\\\\").replace('"', '\\"')
    _put(git_dir, "config", _CONFIGURATION.format(url=url, filters=_LFS if lfs else ""))
    _put(git_dir, "objects/info/alternates", f"{mirror.objects}\n")
    for name in _UNWANTED:
        files.remove(git_dir, name)


def _remove_odd_files(git_dir: Path) -> None:
    """Delete git's lock files, and links, pipes and huge files, which git does not create here."""
    for name, entry in files.below(git_dir):
        if entry.is_dir(follow_symlinks=False):
            continue
        is_lock = name.endswith(".lock") and (name.startswith("refs/") or "/" not in name)
        is_odd = not entry.is_file(follow_symlinks=False)
        is_huge = not name.startswith(_LARGE_DIRECTORIES) and _size(entry) > _MAX_FILE_BYTES
        if is_lock or is_odd or is_huge:
            files.remove(git_dir, name)


def _size(entry: os.DirEntry[str]) -> int:
    return entry.stat(follow_symlinks=False).st_size


def _remove_obstacles(work_tree: Path) -> None:
    """Delete files that git opens but cannot commit, such as a pipe named `.gitignore`."""
    for name, entry in files.below(work_tree):
        if entry.is_file(follow_symlinks=False):
            is_obstacle = entry.name in _RULE_FILES and _size(entry) > _MAX_RULE_FILE_BYTES
        else:
            is_obstacle = not entry.is_dir(follow_symlinks=False) and not entry.is_symlink()
        if is_obstacle:
            files.remove(work_tree, name)


def _restore_branch(worktree: Worktree) -> None:
    """Reset the job's branch to its base commit if a power cut emptied its file."""
    name = f"{HEADS}{worktree.branch}"
    if worktree.branch is not None and files.is_file(worktree.git_dir, name):
        ref = files.read_text(worktree.git_dir, name, limit=_MAX_REF_BYTES)
        if ref is None or _HEAD.fullmatch(ref) is None:
            _put(worktree.git_dir, name, f"{worktree.base_sha}\n")


def _head(worktree: Worktree, sha: str) -> str:
    return f"{sha}\n" if worktree.branch is None else f"ref: {HEADS}{worktree.branch}\n"


def _put(root: Path, name: str, content: str) -> None:
    if files.read_text(root, name, limit=_MAX_REF_BYTES) != content:
        files.write(root, name, encode(content), mode=0o644)
