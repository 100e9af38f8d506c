"""The small files by which git and a worktree find each other."""

from __future__ import annotations

import re
from pathlib import Path

from workspace.worktree import Worktree

_HEAD = re.compile(r"ref: refs/\S+\n|([0-9a-f]{40}|[0-9a-f]{64})\n")


def restore_pointers(worktree: Worktree) -> None:
    """Put back what a power cut emptied or a job deleted; anything that can be right stays.

    Where HEAD cannot be read, the job's branch is checked out again; no file is touched.
    """
    dot_git = worktree.path / ".git"
    if worktree.path.is_dir() and not dot_git.is_dir():
        _rewrite(dot_git, f"gitdir: {worktree.git_dir}\n")
    _rewrite(worktree.git_dir / "gitdir", f"{dot_git}\n")
    _rewrite(worktree.git_dir / "commondir", "../..\n")
    head = worktree.git_dir / "HEAD"
    if _HEAD.fullmatch(_text(head)) is None:
        branch = f"ref: refs/heads/{worktree.branch}"
        _rewrite(head, f"{branch if worktree.branch else worktree.base_sha}\n")


def _rewrite(file: Path, wanted: str) -> None:
    if _text(file) != wanted:
        draft = file.with_name(f"{file.name}.draft")
        draft.write_text(wanted, "utf-8", "surrogateescape")
        draft.replace(file)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
