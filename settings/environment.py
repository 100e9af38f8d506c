"""The source of all settings: the environment, and the files of secrets that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from domain.configuration.claude_env import CLAUDE_SECRET_NAMES

SECRET_NAMES = CLAUDE_SECRET_NAMES | {
    "AGENT_API_SECRET",
    "GITHUB_TOKEN",
    "SUPABASE_SERVICE_ROLE_KEY",
}
"""For each of these, NAME_FILE can name a file that holds the secret."""

_MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SecretFile:
    """The file of a secret, named by the variable NAME_FILE.

    Args:
        name: of the secret's own variable, without `_FILE`.
        path: of the file.
        has_variable: whether the secret's own variable is set too, which is an error.
    """

    name: str
    path: str
    has_variable: bool

    def read(self) -> str:
        """Return the content without the line ends at its end.

        Raises:
            ValueError: the content cannot be a secret, or both variables are set.
        """
        if self.has_variable:
            raise ValueError(f"and {self.name}_FILE are both set. Set one of them.")
        try:
            with open(self.path, "rb") as file:
                content = file.read(_MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise self._unusable(f"cannot be read ({os.strerror(error.errno or 0)})") from None
        if len(content) > _MAX_SECRET_BYTES:
            raise self._unusable(f"is over {_MAX_SECRET_BYTES // 1024} KiB")
        try:
            text = content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise self._unusable("is not UTF-8 text") from None
        if not text.strip():
            raise self._unusable("is empty")
        return text

    def _unusable(self, reason: str) -> ValueError:
        return ValueError(
            f"has no value, because the file {self.path!r} {reason}. Correct {self.name}_FILE."
        )


class EnvironmentSource(PydanticBaseSettingsSource):
    """Gives the variables to every group of settings. Blank variables count as not set."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        given = {name: text for name, text in environ.items() if text.strip()}
        files = {
            name: SecretFile(name, given[f"{name}_FILE"].strip(), name in given)
            for name in SECRET_NAMES
            if f"{name}_FILE" in given
        }
        self._variables: dict[str, str | SecretFile] = {**given, **files}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return all variables: each group picks its own by their names."""
        return self._variables, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the variables for each group."""
        return dict.fromkeys(self.settings_cls.model_fields, self._variables)


def current_environment() -> dict[str, str]:
    """Return the environment of this process, for child processes that read their own settings."""
    return dict(os.environ)
