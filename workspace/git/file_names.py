"""Paths of a repository as text. Git allows bytes that are not UTF-8 in them."""

from __future__ import annotations

from collections.abc import Collection

MAX_NAMED_PATHS = 5
"""The number of paths that a failure or notice names."""


def printable(path: str) -> str:
    """Replace the bytes of a path that are not UTF-8, which no database or JSON text can hold."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def join_paths(paths: Collection[str], limit: int | None = None) -> str:
    """Return the first `limit` paths in order, separated by commas; all of them by default."""
    return ", ".join(printable(path) for path in sorted(paths)[:limit])
