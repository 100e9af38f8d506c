"""Error answers of the fake GitHub, with the texts of GitHub."""

from __future__ import annotations

from typing import Any

_DOCUMENTATION = "https://docs.github.com/rest"


class Refusal(Exception):
    """A request that GitHub would answer with an error.

    Args:
        status: the HTTP status.
        message: GitHub's message.
        errors: the details of a 422.
    """

    def __init__(
        self, status: int, message: str, errors: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors

    def body(self) -> dict[str, Any]:
        """Return the JSON body that GitHub sends."""
        body: dict[str, Any] = {"message": self.message}
        if self.errors is not None:
            body["errors"] = self.errors
        return {**body, "documentation_url": _DOCUMENTATION, "status": str(self.status)}


def not_found() -> Refusal:
    """Return the answer for a resource that does not exist or that the token may not see."""
    return Refusal(404, "Not Found")


def invalid(field: str, code: str = "invalid", message: str = "") -> Refusal:
    """Return the answer for an invalid field of a pull request.

    Args:
        field: its name; empty if the rule concerns several fields.
        code: `invalid`, `missing_field` or `custom`.
        message: the sentence for `custom`.
    """
    error = {"resource": "PullRequest", "field": field, "code": code}
    if message:
        error["message"] = message
    return Refusal(422, "Validation Failed", [error])
