"""Usage limits of Claude credentials."""

from __future__ import annotations

from datetime import datetime, timedelta

MAX_LIMIT_DURATION = timedelta(days=8)
"""The longest limit lasts a week."""

UNKNOWN_RESET = timedelta(minutes=15)
"""The wait for a usage limit that did not say when it ends: short against its five hours, and each
try costs one refused request."""

_OF_THE_CREDENTIAL = frozenset({None, "five_hour", "seven_day"})


def blocks_all_models(limit_type: str | None) -> bool:
    """Tell whether a limit is for all models; others, such as `seven_day_opus`, are for one."""
    return limit_type in _OF_THE_CREDENTIAL


def is_plausible(resets_at: datetime, now: datetime) -> bool:
    """Tell whether a limit can last until then; a later time is a mistake of whoever told it."""
    return resets_at <= now + MAX_LIMIT_DURATION
