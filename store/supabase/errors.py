"""Translates the errors and failures of Supabase into the errors of `domain`.

Codes: https://docs.postgrest.org/en/stable/references/errors.html and
https://www.postgresql.org/docs/17/errcodes-appendix.html. A code `PGRST...` is PostgREST's own.
Five characters are Postgres's SQLSTATE. Three digits are an HTTP status without a PostgREST error.
A gateway that refuses the key sends no code (measured).
"""

from __future__ import annotations

import re

import httpx
from postgrest import APIError

from domain.errors import (
    Conflict,
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    OrchestratorError,
)

DUPLICATE = "23505"
MISSING_REFERENCE = "23503"

_TEMPORARY = re.compile(r"(08|40|53|55|57|58)...|PGRST00[0-3]")
"""Lost connections, deadlocks, resources, locks, interventions, disks; PostgREST's pool."""

_OF_THE_KEY = frozenset({"401", "403", "42501", "PGRST301", "PGRST302", "PGRST303"})
_NO_SUCH_THING = re.compile(r"42P01|42703|42883|PGRST20[0-5]")
_REFERENCE = re.compile(r"Key \((\w+)\)=")

REFUSED_KEY = (
    "Supabase refused the key. Set SUPABASE_SERVICE_ROLE_KEY to the secret (service role) key of "
    "the project at SUPABASE_URL."
)
OLD_SCHEMA = (
    "The Supabase project does not have this version's tables and functions. Apply "
    "supabase/migrations with `supabase db push`."
)
_READ_ONLY = (
    "The Supabase project is read-only, for example because its disk is full. Check the project's "
    "dashboard."
)


class NoAnswer(Exception):
    """Supabase or its gateway reported a temporary failure.

    Args:
        status: the HTTP status.
        code: the code of PostgREST or Postgres, or empty.
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"HTTP {status} {code}".rstrip())


class Refusal(Exception):
    """A permanent error, without PostgREST's details, which may quote rows.

    Args:
        code: the code of PostgREST or Postgres, or the HTTP status.
        message: the message of the error.
        column: the column that refers to a missing row, if the error names it.
    """

    def __init__(self, code: str, message: str, column: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.column = column


def refusal(error: APIError) -> Refusal:
    """Return the error without `details`, which contains the refused row (measured)."""
    column = _REFERENCE.match(str(error.details))
    return Refusal(error.code or "", error.message or "", column[1] if column else "")


async def raise_failures(response: httpx.Response) -> None:
    """Raise the failures whose status the client would lose. A response hook of httpx.

    Raises:
        NoAnswer: a temporary failure, or an HTML page with status 200.
        Refusal: a gateway before PostgREST refused the key.
    """
    status = response.status_code
    if response.is_success and "html" in response.headers.get("content-type", ""):
        raise NoAnswer(status, "with an HTML page")
    if status < 400:
        return
    await response.aread()
    code = _code(response)
    if status in {401, 403} and not code:
        raise Refusal(str(status), "The gateway refused the key.")
    if (status >= 500 or status in {408, 429}) and (not code or _TEMPORARY.fullmatch(code)):
        raise NoAnswer(status, code)


def _code(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return ""
    return str(body.get("code") or "") if isinstance(body, dict) else ""


def translated(refused: Refusal) -> OrchestratorError:
    """Return the error for the caller."""
    code = refused.code
    if code == DUPLICATE:
        return Conflict("A record with the same key exists. Read it instead of adding it again.")
    if code == MISSING_REFERENCE:
        return InvalidRequest("The record refers to a missing record. Create that record first.")
    if code.startswith(("22", "23")):
        return InvalidRequest("The record has a missing or invalid value. Correct it.")
    if code in _OF_THE_KEY:
        return DependencyFailed(REFUSED_KEY, "store")
    if _NO_SUCH_THING.fullmatch(code):
        return DependencyFailed(OLD_SCHEMA, "store")
    if code == "25006":
        return DependencyUnavailable(_READ_ONLY, "store")
    return DependencyFailed(
        f"Supabase could not execute the request (code {code[:8] or 'missing'}). Check that "
        "SUPABASE_URL is the project's address, and read Supabase's message in the log.",
        "store",
    )


def unavailable(cause: Exception) -> DependencyUnavailable:
    """Return the error for a request whose last try was not answered."""
    return DependencyUnavailable(
        f"Supabase did not answer ({type(cause).__name__}). Try again in a moment. If it happens "
        "again, check SUPABASE_URL and the project's status.",
        "store",
    )
