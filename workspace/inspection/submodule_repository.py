"""The repository of a submodule, read as files: any job can have written what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox import files
from workspace.git.refs import HEADS, SHA
from workspace.git.text import decode, lines
from workspace.worktree.worktree import Worktree

_MAX_SMALL = 4096
_MAX_LIST = 64 * 1024 * 1024
_POINTER = re.compile(r"gitdir: ([^\n\0]+)\n?")
_HEAD = re.compile(rf"(?P<sha>{SHA.pattern})|ref: (?P<name>refs/\S+)")
_PACKED = re.compile(rf"({SHA.pattern}) (refs/.+)")


class Unreadable(Exception):
    """A submodule is not as git makes it."""


@dataclass(frozen=True)
class Refs:
    """Where a repository has its commits.

    Args:
        head: the commit that is checked out; None when there is none yet.
        own: that one, and those of the local branches and of the stash.
        remote: those of the remote's branches, as they were last fetched.
        shallow: the commits whose parents were never fetched.
    """

    head: str | None
    own: frozenset[str]
    remote: frozenset[str]
    shallow: tuple[str, ...]


def git_dir_of(worktree: Worktree, directory: Path) -> Path | None:
    """Return the git directory of a submodule; None where none is checked out.

    Raises:
        Unreadable: there are files, and their git directory is not where git puts it.
    """
    dot_git = directory / ".git"
    if not os.path.lexists(dot_git):
        if any(directory.iterdir()):
            raise Unreadable(f"{directory} has no git directory")
        return None
    if dot_git.is_dir() and not dot_git.is_symlink():
        return dot_git
    pointer = _POINTER.fullmatch(_text(dot_git, _MAX_SMALL))
    git_dir = (directory / pointer[1]).resolve() if pointer else dot_git
    if not git_dir.is_dir() or not git_dir.is_relative_to(modules_of(worktree).resolve()):
        raise Unreadable(f"{dot_git} leads elsewhere")
    return git_dir


def modules_of(worktree: Worktree) -> Path:
    """Return the directory in which the git directories of a worktree's submodules are."""
    return worktree.git_dir / "modules"


def git_dirs_below(modules: Path) -> Iterator[Path]:
    """Return the git directories in a directory of modules, those of their submodules included."""
    if not modules.is_dir():
        return
    found = (Path(name) for name, _ in files.below(modules))
    with_head = {path.parent for path in found if path.name == "HEAD"}
    for directory in sorted(with_head):
        parts = directory.parts
        above = (number for number in range(len(parts)) if Path(*parts[:number]) in with_head)
        # A git directory has others in `modules`, and a HEAD in `logs`, which is none.
        if all(parts[number] == "modules" for number in above):
            yield (modules / directory).resolve()


def read_refs(git_dir: Path) -> Refs:
    """Read the refs of a repository.

    Raises:
        Unreadable: one of them is not what git writes.
    """
    found = dict(_packed(git_dir)) | dict(_loose(git_dir))
    head = _HEAD.fullmatch(_text(git_dir / "HEAD", _MAX_SMALL).strip())
    if head is None:
        raise Unreadable(f"{git_dir} has no HEAD")
    checked_out = head["sha"] or found.get(head["name"])
    own = {sha for name, sha in found.items() if name.startswith((HEADS, "refs/stash"))}
    remote = {sha for name, sha in found.items() if name.startswith("refs/remotes/")}
    return Refs(
        checked_out,
        frozenset(own | {checked_out} if checked_out else own),
        frozenset(remote),
        tuple(re.findall(rf"^(?:{SHA.pattern})$", _text(git_dir / "shallow", _MAX_LIST, ""), re.M)),
    )


def _packed(git_dir: Path) -> Iterator[tuple[str, str]]:
    for line in lines(_text(git_dir / "packed-refs", _MAX_LIST, "")):
        packed = _PACKED.fullmatch(line)
        if packed:
            yield packed[2], packed[1]


def _loose(git_dir: Path) -> Iterator[tuple[str, str]]:
    for name, entry in files.below(git_dir / "refs"):
        if entry.is_dir(follow_symlinks=False) or name.endswith(".lock"):
            continue
        ref = _HEAD.fullmatch(_text(git_dir / "refs" / name, _MAX_SMALL).strip())
        if ref is None:
            raise Unreadable(f"{name} of {git_dir} is no ref")
        if ref["sha"]:
            yield f"refs/{name}", ref["sha"]


def _text(file: Path, limit: int, absent: str | None = None) -> str:
    try:
        return decode(files.read(file.parent, file.name, limit=limit))
    except FileNotFoundError:
        if absent is None:
            raise
        return absent
    except files.UnsafeFile as error:
        raise Unreadable(str(error)) from error
