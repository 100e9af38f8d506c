"""Clients, their repositories, and the other rows that a job may refer to.

Lists are sorted here, because the order of text in Postgres depends on the project's collation.
"""

from __future__ import annotations

from collections.abc import Iterable

from postgrest import AsyncSelectRequestBuilder, ReturnMethod
from typing_extensions import override

from domain.errors import Conflict, InvalidRequest
from domain.repositories import Client, ClientDetails, Repository
from store.codec.rows import (
    CLIENT_COLUMNS,
    REPOSITORY_COLUMNS,
    Row,
    client_from_row,
    client_to_row,
    repository_from_row,
    repository_to_row,
)
from store.codec.values import canonical_id, column_value
from store.protocol import ClientStore
from store.supabase.connection import SupabaseAggregate, SupabaseConnection
from store.supabase.errors import MISSING_REFERENCE, Refusal, translated

_CLIENTS = "clients"
_REPOSITORIES = "code_repositories"


class SupabaseClients(SupabaseAggregate, ClientStore):
    """Clients, their repositories, and the other rows that a job may refer to."""

    @override
    async def create_client(self, client: Client) -> None:
        await self._connection.rows(
            self._connection.table(_CLIENTS).upsert(
                client_to_row(client),
                on_conflict="id",
                ignore_duplicates=True,
                returning=ReturnMethod.minimal,
            )
        )

    @override
    async def list_clients(self) -> list[ClientDetails]:
        rows = await self._connection.pages(
            lambda read: _by_id(self._connection, _CLIENTS, CLIENT_COLUMNS, read)
        )
        clients = sorted(map(client_from_row, rows), key=lambda client: (client.name, client.id))
        found = {client.id: ClientDetails(client, []) for client in clients}
        for repository in _oldest_first(await _on_github(self._connection)):
            if repository.client_id in found:
                found[repository.client_id].repositories.append(repository)
        return list(found.values())

    @override
    async def get_client(self, client_id: str) -> ClientDetails | None:
        row = await _row(self._connection, _CLIENTS, CLIENT_COLUMNS, client_id)
        if row is None:
            return None
        return ClientDetails(
            client_from_row(row), _oldest_first(await _on_github(self._connection, row["id"]))
        )

    @override
    async def add_repository(self, repository: Repository) -> None:
        query = self._connection.function(
            "orchestrator_add_repository", repository_to_row(repository)
        )
        try:
            added = (await self._connection.send(query)).data
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise InvalidRequest(
                    f"The client {repository.client_id} does not exist. Create it first."
                ) from refused
            raise translated(refused) from refused
        if not added:
            raise Conflict(f"The client already has the repository {repository.full_name}.")

    @override
    async def get_repository(self, repository_id: str) -> Repository | None:
        row = await _row(self._connection, _REPOSITORIES, REPOSITORY_COLUMNS, repository_id)
        return None if row is None else repository_from_row(row)

    @override
    async def find_repository(self, owner_name: str, repo_name: str) -> Repository | None:
        names = {"owner": column_value(owner_name), "repository": column_value(repo_name)}
        rows = await self._connection.rows(
            self._connection.function("orchestrator_find_repository", names)
        )
        return repository_from_row(rows[0]) if rows else None

    @override
    async def list_repositories(self) -> list[Repository]:
        return sorted(
            await _on_github(self._connection),
            key=lambda repository: (repository.owner_name, repository.repo_name, repository.id),
        )

    @override
    async def feature_exists(self, feature_id: str) -> bool:
        return await _row(self._connection, "features", ("id",), feature_id) is not None

    @override
    async def team_member_exists(self, team_member_id: str) -> bool:
        return await _row(self._connection, "team_members", ("id",), team_member_id) is not None


async def _row(
    connection: SupabaseConnection, table: str, columns: Iterable[str], row_id: str
) -> Row | None:
    canonical = canonical_id(row_id)
    if canonical is None:
        return None
    rows = await connection.rows(connection.table(table).select(*columns).eq("id", canonical))
    return rows[0] if rows else None


async def _on_github(
    connection: SupabaseConnection, client_id: str | None = None
) -> list[Repository]:
    def page(read: list[Row]) -> AsyncSelectRequestBuilder:
        query = _by_id(connection, _REPOSITORIES, REPOSITORY_COLUMNS, read)
        query = query.eq("provider", "github")
        return query if client_id is None else query.eq("client_id", client_id)

    return [repository_from_row(row) for row in await connection.pages(page)]


def _by_id(
    connection: SupabaseConnection, table: str, columns: Iterable[str], read: list[Row]
) -> AsyncSelectRequestBuilder:
    """Begin the page after the last row read, so that concurrent inserts do not shift pages."""
    query = connection.table(table).select(*columns).order("id")
    return query.gt("id", read[-1]["id"]) if read else query


def _oldest_first(repositories: Iterable[Repository]) -> list[Repository]:
    return sorted(repositories, key=lambda repository: (repository.created_at, repository.id))
