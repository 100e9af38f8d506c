"""Usage limits of Claude credentials."""

from __future__ import annotations

from datetime import datetime, timedelta

MAX_LIMIT_DURATION = timedelta(days=8)
"""The longest limit lasts a week."""

UNKNOWN_RESET = timedelta(minutes=15)
"""The wait for a usage limit without a reset time. It is short compared with the five hours of the
limit, and each try costs one refused request."""

_OF_THE_CREDENTIAL = frozenset({None, "five_hour", "seven_day"})


def blocks_all_models(limit_type: str | None) -> bool:
    """Return whether a limit applies to all models. `seven_day_opus`, for example, does not."""
    return limit_type in _OF_THE_CREDENTIAL


def is_plausible(resets_at: datetime, now: datetime) -> bool:
    """Return whether a limit can last until `resets_at`; a later time is an error of the source."""
    return resets_at <= now + MAX_LIMIT_DURATION
