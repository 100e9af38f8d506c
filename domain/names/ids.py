"""Ids: random for new rows, derived for writes that must be idempotent."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6c1f6f0e-6c58-4e3f-9d0c-7d1c1a4a2f35")


def new_id() -> str:
    """Return a random UUID as lower-case text."""
    return str(uuid.uuid4())


def derived_id(*parts: object) -> str:
    """Return the UUID of `parts`, which is the same in every process."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(str(part) for part in parts)))


def is_id(text: str) -> bool:
    """Return whether `text` is a UUID of 36 characters, in any case."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
