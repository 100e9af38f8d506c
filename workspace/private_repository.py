"""The private git repository of a job: all that Claude can change of git, and nobody else uses.

It borrows the objects of the mirror, which Claude sees read-only, and has its own index, refs,
configuration and stash. Commits reach the mirror as a bundle; see `crossing`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sandbox import files
from workspace.mirrors import Mirror
from workspace.worktree import Worktree

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
_UNWANTED = (
    "commondir",
    "config.worktree",
    "info/attributes",
    "info/exclude",
    "info/grafts",
    "shallow",
)
"""Each changes what git does without being configuration (gitrepository-layout(5))."""

_MAX_SMALL = 64 * 1024
_HEAD = re.compile(r"ref: refs/\S+\n|([0-9a-f]{40}|[0-9a-f]{64})\n")


def make(
    worktree: Worktree, mirror: Mirror, sha: str, tracking: Mapping[str, str], *, lfs: bool
) -> None:
    """Make the repository of a worktree, without its files.

    Args:
        worktree: whose directory is made, empty.
        mirror: whose lock is held.
        sha: the commit that the job's branch or the detached HEAD is at.
        tracking: the sha of every branch of the remote, by `refs/remotes/origin/<branch>`.
        lfs: whether git-lfs is installed.
    """
    git_dir = worktree.git_dir
    worktree.path.mkdir(parents=True)
    for name in ("refs/heads", "objects/info", "objects/pack", "info"):
        (git_dir / name).mkdir(parents=True)
    rows = [f"{commit} {name}\n" for name, commit in sorted(tracking.items())]
    # Without traits in the first line, git sorts and peels by itself.
    (git_dir / "packed-refs").write_text("".join(rows), "utf-8", "surrogateescape")
    if worktree.branch is not None:
        branch = git_dir / "refs" / "heads" / worktree.branch
        branch.parent.mkdir(parents=True, exist_ok=True)
        branch.write_text(f"{sha}\n")
    (git_dir / "HEAD").write_text(_head(worktree, sha), "utf-8", "surrogateescape")
    restore(worktree, mirror, lfs=lfs)


def restore(worktree: Worktree, mirror: Mirror, *, lfs: bool) -> None:
    """Put back the files that git obeys, whatever a job made of them. Claude must have ended.

    From now on only git and git-lfs run in this repository, and no program that a job names.
    """
    url = mirror.url.replace("\\", "\\\\").replace('"', '\\"')
    wanted = _CONFIGURATION.format(url=url, filters=_LFS if lfs else "")
    _put(worktree.git_dir, "config", wanted)
    _put(worktree.git_dir, "objects/info/alternates", f"{mirror.objects}\n")
    for name in _UNWANTED:
        files.remove(worktree.git_dir, name)
    restore_pointers(worktree)


def restore_pointers(worktree: Worktree) -> None:
    """Put back what a power cut emptied or a job deleted; anything that can be right stays.

    Where HEAD cannot be read, the job's branch is checked out again; no file is touched.
    """
    if worktree.path.is_dir() and not files.is_directory(worktree.path, ".git"):
        _put(worktree.path, ".git", f"gitdir: {worktree.git_dir}\n")
    head = files.read_text(worktree.git_dir, "HEAD", limit=_MAX_SMALL)
    if head is None or _HEAD.fullmatch(head) is None:
        _put(worktree.git_dir, "HEAD", _head(worktree, worktree.base_sha))


def remove_locks(worktree: Worktree) -> None:
    """Delete the locks that a killed git left behind.

    Call it while holding the worktree's lock and after Claude has ended: then nobody is at work.
    """
    pending = ["refs"]
    while pending:
        directory = pending.pop()
        for name in files.names(worktree.git_dir, directory):
            path = f"{directory}/{name}"
            if name.endswith(".lock"):
                files.remove(worktree.git_dir, path)
            elif files.is_directory(worktree.git_dir, path):
                pending.append(path)
    for name in files.names(worktree.git_dir):
        if name.endswith(".lock"):
            files.remove(worktree.git_dir, name)


def branch_in(git_dir: Path) -> str | None:
    """Return the branch that a repository has checked out; None for none."""
    head = files.read_text(git_dir, "HEAD", limit=_MAX_SMALL) if git_dir.is_dir() else None
    found = re.fullmatch(r"ref: refs/heads/(\S+)\n", head or "")
    return found[1] if found else None


def _head(worktree: Worktree, sha: str) -> str:
    return f"{sha}\n" if worktree.branch is None else f"ref: refs/heads/{worktree.branch}\n"


def _put(root: Path, name: str, wanted: str) -> None:
    if files.read_text(root, name, limit=_MAX_SMALL) != wanted:
        files.write(root, name, wanted.encode("utf-8", "surrogateescape"), mode=0o644)
