"""Building blocks of the groups: how one variable is declared, parsed and checked.

Every parser takes text. Its ValueError continues a sentence that begins with the variable's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from settings.environment import SecretFile


class Group(BaseModel):
    """Settings that belong together. Each field is one variable."""

    # Defaults are text, as in the environment, and are parsed like it.
    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    title: ClassVar[str]
    """Heading of the group in the documentation."""


def setting(name: str, default: str | None, meaning: str, *, shown: str | None = None) -> Any:
    """Declare a variable.

    Args:
        name: of the variable.
        default: text that is parsed when the variable is not set.
        meaning: for the documentation.
        shown: text in the documentation in place of the default.
    """
    if shown is None:
        shown = f"`{default}`" if default else ""
    return Field(
        default, validation_alias=name, description=meaning, json_schema_extra={"shown": shown}
    )


def parsed(parse: Callable[[str], object]) -> BeforeValidator:
    """Return the validator that parses the stripped text; None stays None."""
    return BeforeValidator(lambda text: None if text is None else parse(text.strip()))


def whole_number(low: int, high: int, unit: Callable[[int], object] = int) -> BeforeValidator:
    """Return the parser of a whole number.

    Args:
        low: the minimum.
        high: the maximum.
        unit: converts the number, for example minutes into a duration.
    """

    def parse(text: str) -> object:
        if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"is {text!r}. Set it to a whole number from {low} to {high}.")
        return unit(int(text))

    return parsed(parse)


def minutes(high: int) -> BeforeValidator:
    """Return the parser of a duration of 1 to `high` minutes."""
    return whole_number(1, high, lambda number: timedelta(minutes=number))


def gibibytes() -> BeforeValidator:
    """Return the parser of a size in GiB; the value is in bytes."""
    return whole_number(1, 100_000, lambda number: number << 30)


def one_of(words: type[StrEnum]) -> BeforeValidator:
    """Return the parser of one of a few words, in any case."""

    def parse(text: str) -> StrEnum:
        try:
            return words(text.lower())
        except ValueError:
            raise ValueError(f"is {text!r}. Set it to {' or '.join(words)}.") from None

    return parsed(parse)


def names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas, each once."""
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def absolute_path(text: str) -> Path:
    """Return the path without `~` and `..`. It need not exist."""
    return Path(os.path.abspath(Path(text).expanduser()))


def flag(text: str) -> bool:
    """Return whether the text is true."""
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"is {text!r}. Set it to true or false.")
    return text.lower() == "true"


def url(text: str) -> str:
    """Return an http(s) URL without a slash at its end."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValueError("must be an http(s) URL without a user name.")
    return text.rstrip("/")


def secret_text(value: str | SecretFile) -> str:
    """Return a secret of the environment, or of its file."""
    return value.read() if isinstance(value, SecretFile) else value


def _secret(value: str | SecretFile | None) -> str | None:
    if value is None:
        return None
    text = secret_text(value).strip()
    if not text.isprintable():
        raise ValueError("contains control characters. Set it to the secret in one line.")
    return text


def listed(entries: Iterable[str]) -> str:
    """Return wrong entries for a message."""
    return ", ".join(map(repr, entries))


Names = Annotated[tuple[str, ...], parsed(names)]
Port = Annotated[int, whole_number(1, 65_535)]
Secret = Annotated[SecretStr | None, BeforeValidator(_secret)]
Text = Annotated[str, parsed(str)]
OptionalText = Annotated[str | None, parsed(str)]
Flag = Annotated[bool, parsed(flag)]
Url = Annotated[str, parsed(url)]
