"""Reads the git directory of a submodule as plain files, because a job could have written it."""

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

_MAX_REF_BYTES = 4096
_MAX_LIST_BYTES = 64 * 1024 * 1024
_GIT_FILE = re.compile(r"gitdir: ([^\n\0]+)\n?")
_HEAD = re.compile(rf"(?P<sha>{SHA.pattern})|ref: (?P<name>refs/\S+)")
_PACKED = re.compile(rf"({SHA.pattern}) (refs/.+)")


class Unreadable(Exception):
    """A submodule's git directory is not in the form that git writes."""


@dataclass(frozen=True)
class Refs:
    """The commits that the refs of a repository name.

    Args:
        head: the commit that is checked out; None before the first commit.
        own: the commits of HEAD, the local branches and the stash.
        remote: the commits of the remote-tracking branches.
        shallow: the commits whose parents were not fetched.
    """

    head: str | None
    own: frozenset[str]
    remote: frozenset[str]
    shallow: tuple[str, ...]


def git_dir_of(worktree: Worktree, directory: Path) -> Path | None:
    """Return the git directory of a submodule; None if the submodule is not checked out.

    Raises:
        Unreadable: the directory has files, but no git directory in the usual place.
    """
    dot_git = directory / ".git"
    if not os.path.lexists(dot_git):
        if any(directory.iterdir()):
            raise Unreadable(f"{directory} has no git directory")
        return None
    if dot_git.is_dir() and not dot_git.is_symlink():
        return dot_git
    match = _GIT_FILE.fullmatch(_text(dot_git, _MAX_REF_BYTES))
    git_dir = (directory / match[1]).resolve() if match else dot_git
    if not git_dir.is_dir() or not git_dir.is_relative_to(modules_of(worktree).resolve()):
        raise Unreadable(f"{dot_git} does not name a git directory of the worktree")
    return git_dir


def modules_of(worktree: Worktree) -> Path:
    """Return the directory that holds the git directories of a worktree's submodules."""
    return worktree.git_dir / "modules"


def git_dirs_below(modules: Path) -> Iterator[Path]:
    """Yield the git directories below `modules`, including those of nested submodules."""
    if not modules.is_dir():
        return
    paths = (Path(name) for name, _ in files.below(modules))
    with_head = {path.parent for path in paths if path.name == "HEAD"}
    for directory in sorted(with_head):
        parts = directory.parts
        above = (number for number in range(len(parts)) if Path(*parts[:number]) in with_head)
        # Nested git directories are in `modules`. The HEAD in `logs` belongs to no repository.
        if all(parts[number] == "modules" for number in above):
            yield (modules / directory).resolve()


def read_refs(git_dir: Path) -> Refs:
    """Read HEAD and the refs of a repository.

    Raises:
        Unreadable: one of them is malformed.
    """
    refs = dict(_packed(git_dir)) | dict(_loose(git_dir))
    head = _HEAD.fullmatch(_text(git_dir / "HEAD", _MAX_REF_BYTES).strip())
    if head is None:
        raise Unreadable(f"{git_dir} has no valid HEAD")
    checked_out = head["sha"] or refs.get(head["name"])
    own = {sha for name, sha in refs.items() if name.startswith((HEADS, "refs/stash"))}
    remote = {sha for name, sha in refs.items() if name.startswith("refs/remotes/")}
    return Refs(
        checked_out,
        frozenset(own | {checked_out} if checked_out else own),
        frozenset(remote),
        tuple(
            re.findall(
                rf"^(?:{SHA.pattern})$", _text(git_dir / "shallow", _MAX_LIST_BYTES, ""), re.M
            )
        ),
    )


def _packed(git_dir: Path) -> Iterator[tuple[str, str]]:
    for line in lines(_text(git_dir / "packed-refs", _MAX_LIST_BYTES, "")):
        packed = _PACKED.fullmatch(line)
        if packed:
            yield packed[2], packed[1]


def _loose(git_dir: Path) -> Iterator[tuple[str, str]]:
    for name, entry in files.below(git_dir / "refs"):
        if entry.is_dir(follow_symlinks=False) or name.endswith(".lock"):
            continue
        ref = _HEAD.fullmatch(_text(git_dir / "refs" / name, _MAX_REF_BYTES).strip())
        if ref is None:
            raise Unreadable(f"{git_dir / 'refs' / name} is not a valid ref")
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
