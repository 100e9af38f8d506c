"""Converts single values between `domain` and the columns of a row, for all adapters."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from domain.errors import InvalidRequest
from domain.messages import is_storable, sanitize_text
from domain.names.ids import is_id

JsonObject = dict[str, Any]
ColumnValue = str | int | float | JsonObject | None

Member = TypeVar("Member", bound=StrEnum)


def canonical_id(text: str) -> str | None:
    """Return a UUID in lower case, or None if `text` is not a UUID and so not the id of a row."""
    return text.lower() if is_id(text) else None


def required_id(text: str, column: str) -> str:
    """Return a UUID in lower case.

    Raises:
        InvalidRequest: `text` is not a UUID.
    """
    canonical = canonical_id(text)
    if canonical is None:
        raise InvalidRequest(
            f"{column} {sanitize_text(text)[:80]!r} is not a UUID. Send an id from the API."
        )
    return canonical


def time_text(moment: datetime) -> str:
    """Return an aware time as UTC text of fixed width, so that the text sorts by time.

    Raises:
        ValueError: the time is naive.
    """
    if moment.tzinfo is None:
        raise ValueError(f"The time {moment} has no time zone; pass an aware one.")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def parse_time(text: str) -> datetime:
    """Return ISO text as a time in UTC; text without an offset is UTC."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_optional_time(text: str | None) -> datetime | None:
    """Return ISO text as a time in UTC, or None."""
    return None if text is None else parse_time(text)


def parse_member(kind: type[Member], text: str | None) -> Member | None:
    """Return the member with that value, or None for None and for values of a newer version."""
    return kind(text) if text is not None and text in kind._value2member_map_ else None


def require_storable(text: str, column: str) -> str:
    """Return `text`, which must be stored unchanged, with any length.

    Raises:
        InvalidRequest: a store cannot store it unchanged.
    """
    if not is_storable(text):
        raise InvalidRequest(
            f"{column} contains a NUL or a lone surrogate, which cannot be stored. Remove it."
        )
    return text


def column_value(value: str | int | float | datetime | StrEnum | None) -> ColumnValue:
    """Return a domain value as a statement's parameter, with text sanitized and times as text."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, str):
        return sanitize_text(value)
    if isinstance(value, datetime):
        return time_text(value)
    return value
