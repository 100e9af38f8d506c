"""What a branch changed, file by file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from demo.forge_bare import BareRepository

_STATUS = {"A": "added", "D": "removed", "M": "modified", "R": "renamed", "C": "copied"}


class Change(NamedTuple):
    """One changed file; `previous` is its old path when it was renamed or copied.

    `additions` and `deletions` are lines, 0 for a binary file. `blob` is the new content's sha, or
    the old content's when the file was removed.
    """

    path: str
    previous: str | None
    status: str
    blob: str
    additions: int
    deletions: int


def changes(bare: BareRepository, base: str, head: str) -> list[Change]:
    """Return what `head` changed since it left `base`, in the order of the paths."""
    raw = _raw(iter(bare.diff_fields("--raw", base, head)))
    lines = _numstat(iter(bare.diff_fields("--numstat", base, head)))
    return [
        Change(path, previous, status, blob, *counts)
        for (path, previous, status, blob), counts in zip(raw, lines, strict=True)
    ]


def _raw(fields: Iterator[str]) -> Iterator[tuple[str, str | None, str, str]]:
    """Parse `git diff --raw -z`, described in git-diff(1)."""
    for described in fields:
        _, _, old, new, letter = described.split(" ")
        status = _STATUS.get(letter[0], "changed")
        path, previous = next(fields), None
        if letter[0] in "RC":
            path, previous = next(fields), path
        yield path, previous, status, old if status == "removed" else new


def _numstat(fields: Iterator[str]) -> Iterator[tuple[int, int]]:
    """Parse `git diff --numstat -z`, where a rename has its two paths in fields of their own."""
    for described in fields:
        additions, deletions, path = described.split("\t", 2)
        if not path:
            next(fields)
            next(fields)
        yield _count(additions), _count(deletions)


def _count(lines: str) -> int:
    """A binary file has `-` in place of a count."""
    return 0 if lines == "-" else int(lines)
