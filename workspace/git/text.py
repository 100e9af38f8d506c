"""Convert between text and git's input and output, which may not be UTF-8."""

from __future__ import annotations

from collections.abc import Collection

MAX_NAMED_PATHS = 5
"""The number of paths that a failure or notice names."""


def decode(output: bytes) -> str:
    """Decode UTF-8. Other bytes become surrogates (`surrogateescape`)."""
    return output.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Reverse `decode`."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return text from `decode` with replacement characters instead of surrogates."""
    return encode(text).decode("utf-8", "replace")


def lines(output: str) -> list[str]:
    """Return the lines of git's output or of one of its files.

    `str.splitlines` would also split at U+2028 and others, which names may contain.
    """
    return output.removesuffix("\n").split("\n") if output else []


def join_paths(paths: Collection[str], limit: int | None = None) -> str:
    """Return the first `limit` paths in order, separated by commas; all of them by default."""
    return ", ".join(printable(path) for path in sorted(paths)[:limit])
