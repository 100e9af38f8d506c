"""Translates the errors of SQLite into the errors of `domain`.

Result codes: https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors import (
    Conflict,
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    OrchestratorError,
)

_UNAVAILABLE = {
    "SQLITE_BUSY": "another process kept it locked for too long. Try again. If it happens again, "
    "find the process that locks the file.",
    "SQLITE_FULL": "the disk is full. Free some space, then try again.",
    "SQLITE_CANTOPEN": "the file cannot be opened. Check that its directory exists and that this "
    "user may write to it.",
    "SQLITE_READONLY": "this user may not write the file. Give the user write access to it and to "
    "its directory.",
    "SQLITE_IOERR": "the disk reported an error. Check the disk and its free space, then try "
    "again.",
    "SQLITE_NOMEM": "the host had no free memory. Free some, then try again.",
}
"""The cause and the remedy, by primary result code."""

_DAMAGED = {
    "SQLITE_NOTADB": "is not a SQLite database. Move it away, or set another data directory.",
    "SQLITE_CORRUPT": "is damaged. Restore it from a backup.",
    "SQLITE_ERROR": "does not have the tables of this version. Restart, or restore it from a "
    "backup.",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the file system as errors of this project.

    Raises:
        DependencyUnavailable: the file cannot be read or written now.
        DependencyFailed: the file is not a database, is damaged, or has other tables.
        Conflict: a row with the same key exists.
        InvalidRequest: the row refers to a missing row, or has an invalid value.
    """
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise _broken_rule(error) from error
    except sqlite3.DatabaseError as error:
        raise _broken_file(error, path) from error
    except OSError as error:
        raise DependencyUnavailable(
            f"The store's file {path} cannot be reached ({error.strerror}). Check the path and "
            "its permissions.",
            "store",
        ) from error


def is_duplicate(error: sqlite3.IntegrityError) -> bool:
    """Return whether a row with the same key exists."""
    return error.sqlite_errorname in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}


def _broken_rule(error: sqlite3.IntegrityError) -> OrchestratorError:
    if is_duplicate(error):
        return Conflict("A record with the same key exists. Read it instead of adding it again.")
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return InvalidRequest("The record refers to a missing record. Create that record first.")
    return InvalidRequest("The record has a missing or invalid value. Correct it.")


def _broken_file(error: sqlite3.DatabaseError, path: Path) -> OrchestratorError:
    family = _family(error)
    if family in _UNAVAILABLE:
        return DependencyUnavailable(
            f"The store's file {path} did not answer: {_UNAVAILABLE[family]}", "store"
        )
    remedy = _DAMAGED.get(
        family, "could not execute the request. Read SQLite's message in the log."
    )
    return DependencyFailed(f"The store's file {path} {remedy}", "store")


def _family(error: sqlite3.DatabaseError) -> str:
    """Return the primary result code's name: `SQLITE_IOERR` for `SQLITE_IOERR_WRITE`."""
    name: str = getattr(error, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])
