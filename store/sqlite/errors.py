"""What SQLite reports, as the errors of `domain`.

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
    "SQLITE_BUSY": "another process kept it locked for too long. Try again; if it goes on, find "
    "the process that holds the file.",
    "SQLITE_FULL": "the disk is full. Free some space, then try again.",
    "SQLITE_CANTOPEN": "the file cannot be opened. Check that its directory exists and that this "
    "user may write to it.",
    "SQLITE_READONLY": "the file may not be written. Give this user write access to it and to its "
    "directory.",
    "SQLITE_IOERR": "the disk reported an error. Check the disk and its free space, then try "
    "again.",
    "SQLITE_NOMEM": "there was no memory left. Free some, then try again.",
}
"""What happened and what helps, by the family of a result code."""

_DAMAGED = {
    "SQLITE_NOTADB": "is not a SQLite database. Move it away, or set another data directory.",
    "SQLITE_CORRUPT": "is damaged. Restore it from a backup.",
    "SQLITE_ERROR": "does not have the tables of this version. Restart, or restore it from a "
    "backup.",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise SQLite's and the file system's errors as this project's.

    Raises:
        DependencyUnavailable: the file cannot be reached or written at present.
        DependencyFailed: it is no database, is damaged, or has other tables.
        Conflict: a row with that key exists.
        InvalidRequest: the row refers to one that does not exist, or lacks a value.
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
            "who may write to it.",
            "store",
        ) from error


def is_duplicate(error: sqlite3.IntegrityError) -> bool:
    """Tell whether a row with the same key exists."""
    return error.sqlite_errorname in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}


def _broken_rule(error: sqlite3.IntegrityError) -> OrchestratorError:
    if is_duplicate(error):
        return Conflict("A record with the same key exists. Read it instead of adding it again.")
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return InvalidRequest("The record refers to one that does not exist. Create that first.")
    return InvalidRequest("The record lacks a value, or has one that is not allowed.")


def _broken_file(error: sqlite3.DatabaseError, path: Path) -> OrchestratorError:
    family = _family(error)
    if family in _UNAVAILABLE:
        return DependencyUnavailable(
            f"The store's file {path} did not answer: {_UNAVAILABLE[family]}", "store"
        )
    remedy = _DAMAGED.get(family, "could not do what was asked. The log has SQLite's own words.")
    return DependencyFailed(f"The store's file {path} {remedy}", "store")


def _family(error: sqlite3.DatabaseError) -> str:
    """Return the primary result code's name: `SQLITE_IOERR` for `SQLITE_IOERR_WRITE`."""
    name: str = getattr(error, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])
