"""Connections to one SQLite file for asyncio. No call blocks the event loop.

One thread writes, one transaction at a time. A few threads read, each in its own snapshot, which
WAL allows while a transaction writes. Other processes may use the same file.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from domain.errors import DependencyFailed, DependencyUnavailable
from store.sqlite.errors import translated
from store.sqlite.schema import create_schema

READERS = 3
"""Reading threads, so that a long list does not delay reads of single rows."""

CACHE_KIBIBYTES = 16 * 1024
"""The page cache of a connection. It holds the inner index pages of millions of messages."""

CHECKPOINT_PAGES = 8000
"""Pages of 4 KiB in the WAL before a checkpoint. With SQLite's default of 1000, the same index
pages are written again every few batches (measured: two thirds of the speed)."""

WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""The WAL file is truncated to this size after a checkpoint."""

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


class SqliteConnections:
    """The threads and connections of one open file.

    Args:
        path: the database file. Only this user may read it and its directory.
        busy_seconds: how long a call waits for the lock of another process.
    """

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._readers = ThreadPoolExecutor(READERS, "store-read")
        self._write_connection: sqlite3.Connection | None = None
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._file: tuple[int, int] | None = None

    async def prepare(self) -> None:
        """Create the file unless it exists, and open it.

        Raises:
            DependencyUnavailable: the file cannot be opened.
            DependencyFailed: the file belongs to another program or has another schema version.
        """
        await asyncio.get_running_loop().run_in_executor(self._writer, self._prepare)

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction that holds the write lock.

        The transaction is committed if `work` returns and rolled back if it raises. If the caller
        is cancelled, the transaction is still committed completely or never begins.
        """
        deadline = time.monotonic() + self._busy_seconds
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._write, deadline, work)

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` on one read-only snapshot."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, work)

    async def check(self) -> None:
        """Check that the path still is the opened file, and that the file is readable.

        Raises:
            DependencyUnavailable: the file was replaced, or is not readable.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._readers, self._check)

    async def close(self) -> None:
        """Wait for running work, then close every connection."""
        await asyncio.to_thread(self._close)

    def _prepare(self) -> None:
        with translated(self._path):
            _create(self._path)
            self._file = _identity(self._path)
            self._write_connection = self._connect()
            create_schema(self._write_connection, self._path)
            _use_write_ahead_log(self._write_connection, self._path)
            for _ in range(READERS):
                reader = self._connect()
                reader.execute("PRAGMA query_only = ON")
                self._idle.put(reader)

    def _write(self, deadline: float, work: Work[Result]) -> Result:
        connection = self._write_connection
        assert connection is not None
        # The time in the queue of the writing thread counts as waiting for the lock.
        timeout = max(0, round((deadline - time.monotonic()) * 1000))
        with translated(self._path):
            connection.execute(f"PRAGMA busy_timeout = {timeout}")
            with transaction(connection, "IMMEDIATE"):
                return work(connection)

    def _read(self, work: Work[Result]) -> Result:
        with (
            translated(self._path),
            self._reading() as connection,
            transaction(connection, "DEFERRED"),
        ):
            return work(connection)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = self._idle.get()
        try:
            yield connection
        finally:
            self._idle.put(connection)

    def _check(self) -> None:
        with translated(self._path), self._reading() as connection:
            if _identity(self._path) != self._file:
                raise FileNotFoundError(None, "it was moved away and replaced")
            connection.execute("SELECT count(*) FROM agent_hosts").fetchone()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            # Does not create the file, so that a removed file is noticed.
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            # One thread uses a connection at a time, but another thread closes it.
            check_same_thread=False,
        )
        for pragma in (
            "foreign_keys = ON",
            # Each commit is on disk before the answer, so a power failure loses none.
            "synchronous = FULL",
            f"cache_size = -{CACHE_KIBIBYTES}",
            f"journal_size_limit = {WAL_LIMIT_BYTES}",
            "temp_store = MEMORY",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        while not self._idle.empty():
            self._idle.get().close()
        if self._write_connection is not None:
            self._write_connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Run the body in a transaction; roll back if it raises.

    Args:
        connection: a connection in autocommit mode.
        kind: `IMMEDIATE` takes the write lock at once, `DEFERRED` when it is needed.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # The transaction is still open if the body or the commit failed.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Do not open an existing file here: closing it would release all locks of this process on it
    # (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _use_write_ahead_log(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise DependencyFailed(
            f"The store's file {path} is on a file system without shared memory, which SQLite's "
            "write-ahead log requires. Move the data directory to a local disk.",
            "store",
        )


class SqliteAggregate:
    """A part of the store. All parts of one store share its connections."""

    _connections: SqliteConnections | None = None

    @property
    def _opened(self) -> SqliteConnections:
        if self._connections is None:
            raise DependencyUnavailable("The store is not open. Open it first.", "store")
        return self._connections


Part = TypeVar("Part", bound=SqliteAggregate)
Arguments = ParamSpec("Arguments")
Operation = Callable[Concatenate[Part, sqlite3.Connection, Arguments], Result]
Method = Callable[Concatenate[Part, Arguments], Coroutine[Any, Any, Result]]


def reading(operation: Operation[Part, Arguments, Result]) -> Method[Part, Arguments, Result]:
    """Make an async method of an operation, which runs on one read-only snapshot."""

    async def method(self: Part, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await self._opened.read(
            lambda connection: operation(self, connection, *args, **kwargs)
        )

    return method


def writing(operation: Operation[Part, Arguments, Result]) -> Method[Part, Arguments, Result]:
    """Make an async method of an operation, which runs in one write transaction."""

    async def method(self: Part, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await self._opened.write(
            lambda connection: operation(self, connection, *args, **kwargs)
        )

    return method
