"""Wrong settings, reported all at once in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from domain.errors import OrchestratorError


class SettingsError(OrchestratorError):
    """Settings are missing or wrong. The message names each variable, with the remedy."""

    @classmethod
    def of(cls, error: ValidationError) -> SettingsError:
        """Return the error that names all problems, without the values of secrets."""
        return cls("The settings are not usable. " + " ".join(_sentences(error)))


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False):
        reason = str(problem.get("ctx", {}).get("error", problem["msg"]))
        # A problem between variables belongs to a group, and is a whole sentence. A problem of one
        # variable has the variable as its place, and begins with the verb.
        group, *variable = problem["loc"]
        yield f"{variable[-1]} {reason}" if variable else reason
