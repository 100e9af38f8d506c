"""The text that git reads and prints, which need not be UTF-8."""

from __future__ import annotations


def decode(output: bytes) -> str:
    """Return bytes as text; those that are not UTF-8 become surrogates (`surrogateescape`)."""
    return output.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the bytes that `decode` made the text of."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return text from `decode` with replacement characters in the place of surrogates."""
    return encode(text).decode("utf-8", "replace")


def lines(output: str) -> list[str]:
    """Return the lines that git printed, or keeps in a file.

    `str.splitlines` would end lines at U+2028 and others too, which names may contain.
    """
    return output.removesuffix("\n").split("\n") if output else []
