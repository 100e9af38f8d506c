"""Field types that the models of several resources share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainSerializer, WithJsonSchema

from domain.messages import sanitize_text
from domain.names.ids import is_id


def _uuid(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be a UUID")
    return text.lower()


def text_up_to(limit: int) -> AfterValidator:
    """Return a validator of text that is not blank and has at most `limit` bytes in UTF-8."""

    def check(text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        if len(text.encode(errors="surrogatepass")) > limit:
            raise ValueError(f"must be at most {limit} bytes in UTF-8")
        if sanitize_text(text) != text:
            raise ValueError("must not contain NUL characters or lone surrogates")
        return text

    return AfterValidator(check)


def _format_time(moment: datetime) -> str:
    # Every time of the domain is in UTC, so the offset at the end is always +00:00.
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _is_none(value: object) -> bool:
    return value is None


def _never_null(schema: dict[str, Any]) -> None:
    [schema_of_value] = [option for option in schema.pop("anyOf") if option != {"type": "null"}]
    del schema["default"]
    schema.update(schema_of_value)


def absent_if_none(description: str | None = None) -> Any:
    """Return the default of an answer's field that is absent, never null, when it has no value."""
    return Field(None, exclude_if=_is_none, description=description, json_schema_extra=_never_null)


Uuid = Annotated[str, AfterValidator(_uuid)]
Timestamp = Annotated[
    datetime,
    PlainSerializer(_format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""RFC 3339 text in UTC with milliseconds, such as `2026-03-01T12:30:15.123Z`."""
