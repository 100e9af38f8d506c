"""The ways the fake GitHub says no, in GitHub's words."""

from __future__ import annotations

from typing import Any

_DOCUMENTATION = "https://docs.github.com/rest"


class Refusal(Exception):
    """A request that GitHub would answer with an error.

    Args:
        status: the HTTP status.
        message: GitHub's message.
        errors: the particulars of a 422.
    """

    def __init__(
        self, status: int, message: str, errors: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors

    def body(self) -> dict[str, Any]:
        """Return the JSON that GitHub sends."""
        body: dict[str, Any] = {"message": self.message}
        if self.errors is not None:
            body["errors"] = self.errors
        return {**body, "documentation_url": _DOCUMENTATION, "status": str(self.status)}


def not_found() -> Refusal:
    """Return the reply for what does not exist or may not be seen."""
    return Refusal(404, "Not Found")


def invalid(field: str, code: str = "invalid", message: str = "") -> Refusal:
    """Return the reply for one wrong field of a pull request.

    Args:
        field: its name; empty when the rule is about more than one.
        code: `invalid`, `missing_field` or `custom`.
        message: the sentence that goes with `custom`.
    """
    error = {"resource": "PullRequest", "field": field, "code": code}
    if message:
        error["message"] = message
    return Refusal(422, "Validation Failed", [error])
