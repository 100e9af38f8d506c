"""What Supabase answers and fails to answer, as the errors of `domain`.

Codes: https://docs.postgrest.org/en/stable/references/errors.html and
https://www.postgresql.org/docs/17/errcodes-appendix.html. A `PGRST...` code is PostgREST's own,
five characters are Postgres's SQLSTATE, three digits an HTTP status whose body was no PostgREST
error; a gateway that refuses the key sends none at all (measured).
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

_PASSING = re.compile(r"(08|40|53|55|57|58)...|PGRST00[0-3]")
"""Lost connections, deadlocks, no resources, locks, interventions, disks; PostgREST's pool."""

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
    "The Supabase project takes no writes at present, as when its disk is full. See its dashboard."
)


class NoAnswer(Exception):
    """Supabase or a gateway before it reported a failure that may have passed in a moment.

    Args:
        status: the HTTP status.
        code: PostgREST's or Postgres's code, where one was sent.
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"HTTP {status} {code}".rstrip())


class Refusal(Exception):
    """An answer that another try would not change, less what may quote rows (PostgREST's details).

    Args:
        code: PostgREST's or Postgres's code, else the HTTP status.
        message: its sentence.
        column: the column whose reference leads nowhere, empty when the answer does not tell.
    """

    def __init__(self, code: str, message: str, column: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.column = column


def refusal(error: APIError) -> Refusal:
    """Return what may be kept of an error; `details` has the row that was refused (measured)."""
    column = _REFERENCE.match(str(error.details))
    return Refusal(error.code or "", error.message or "", column[1] if column else "")


async def raise_failures(response: httpx.Response) -> None:
    """Raise what the client would lose the status of; a response hook of httpx.

    Raises:
        NoAnswer: another try may have another answer; also a page for people with status 200.
        Refusal: a gateway before PostgREST refused the key.
    """
    status = response.status_code
    if response.is_success and "html" in response.headers.get("content-type", ""):
        raise NoAnswer(status, "with a page for people")
    if status < 400:
        return
    await response.aread()
    code = _code(response)
    if status in {401, 403} and not code:
        raise Refusal(str(status), "The gateway refused the key.")
    if (status >= 500 or status in {408, 429}) and (not code or _PASSING.fullmatch(code)):
        raise NoAnswer(status, code)


def _code(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return ""
    return str(body.get("code") or "") if isinstance(body, dict) else ""


def translated(refused: Refusal) -> OrchestratorError:
    """Return the error that callers are shown."""
    code = refused.code
    if code == DUPLICATE:
        return Conflict("A record with the same key exists. Read it instead of adding it again.")
    if code == MISSING_REFERENCE:
        return InvalidRequest("The record refers to one that does not exist. Create that first.")
    if code.startswith(("22", "23")):
        return InvalidRequest("The record lacks a value, or has one that is not allowed.")
    if code in _OF_THE_KEY:
        return DependencyFailed(REFUSED_KEY, "store")
    if _NO_SUCH_THING.fullmatch(code):
        return DependencyFailed(OLD_SCHEMA, "store")
    if code == "25006":
        return DependencyUnavailable(_READ_ONLY, "store")
    return DependencyFailed(
        f"Supabase could not do what was asked (code {code[:8] or 'missing'}). Check that "
        "SUPABASE_URL is the project's address; the log has Supabase's own words.",
        "store",
    )


def unavailable(cause: Exception) -> DependencyUnavailable:
    """Return the error for when the last try had no answer either."""
    return DependencyUnavailable(
        f"Supabase did not answer ({type(cause).__name__}). Try again in a moment; if it goes on, "
        "check SUPABASE_URL and the project's status.",
        "store",
    )
