"""Operations of the SQLite store: methods that run as one transaction on one of its threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from domain.errors import DependencyUnavailable
from store.sqlite.connections import SqliteConnections


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
Result = TypeVar("Result")
Operation = Callable[Concatenate[Part, sqlite3.Connection, Arguments], Result]
Method = Callable[Concatenate[Part, Arguments], Coroutine[Any, Any, Result]]


def reading(operation: Operation[Part, Arguments, Result]) -> Method[Part, Arguments, Result]:
    """Make a coroutine method of an operation that reads one snapshot."""

    async def method(self: Part, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await self._opened.read(
            lambda connection: operation(self, connection, *args, **kwargs)
        )

    return method


def writing(operation: Operation[Part, Arguments, Result]) -> Method[Part, Arguments, Result]:
    """Make a coroutine method of an operation that writes, in a transaction of its own."""

    async def method(self: Part, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await self._opened.write(
            lambda connection: operation(self, connection, *args, **kwargs)
        )

    return method
