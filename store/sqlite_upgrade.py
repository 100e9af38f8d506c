"""Brings a file to this version's tables, or says why that cannot be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from domain.errors import DependencyFailed
from store.sqlite_schema import APPLICATION_ID, SCHEMA_VERSION, VERSIONS


def upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Run what leads from the file's version to this one, in one transaction.

    Several processes may do so at once: the first does it, the others find it done.

    Raises:
        DependencyFailed: the file is another program's, or of a newer version.
    """
    if _version(connection, path) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in (s for step in VERSIONS[_version(connection, path) :] for s in step):
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if objects and application != APPLICATION_ID:
        raise DependencyFailed(
            f"The file {path} is a database of another program. Move it away, or set another data "
            "directory.",
            "store",
        )
    if version > SCHEMA_VERSION:
        raise DependencyFailed(
            f"The file {path} was written by a newer version of the orchestrator (tables of "
            f"version {version}, this one knows {SCHEMA_VERSION}). Install that version.",
            "store",
        )
    return int(version)


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
