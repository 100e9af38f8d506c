"""Usage limits of Claude credentials."""

from __future__ import annotations

from datetime import datetime, timedelta

LONGEST = timedelta(days=8)
"""The longest limit lasts a week."""


def is_plausible(resets_at: datetime, now: datetime) -> bool:
    """Tell whether a limit can last until then; a later time is a mistake of whoever told it."""
    return resets_at <= now + LONGEST
