"""Clients, their repositories, and what else a job may refer to.

Lists are sorted here: the order of texts in Postgres depends on the project's collation.
"""

from __future__ import annotations

from collections.abc import Iterable

from postgrest import AsyncSelectRequestBuilder, ReturnMethod

from domain.errors import Conflict, InvalidRequest
from domain.repositories import Client, ClientDetails, Repository
from store.row_values import canonical_id, column_value
from store.rows import (
    CLIENT_COLUMNS,
    REPOSITORY_COLUMNS,
    Row,
    client_from_row,
    client_to_row,
    repository_from_row,
    repository_to_row,
)
from store.supabase_connection import SupabaseConnection
from store.supabase_errors import MISSING_REFERENCE, Refusal, translated

_CLIENTS = "clients"
_REPOSITORIES = "code_repositories"


async def create_client(connection: SupabaseConnection, client: Client) -> None:
    """Insert a client."""
    await connection.rows(
        connection.table(_CLIENTS).upsert(
            client_to_row(client),
            on_conflict="id",
            ignore_duplicates=True,
            returning=ReturnMethod.minimal,
        )
    )


async def list_clients(connection: SupabaseConnection) -> list[ClientDetails]:
    """Return every client with its repositories, by name."""
    rows = await connection.pages(lambda read: _by_id(connection, _CLIENTS, CLIENT_COLUMNS, read))
    clients = sorted(map(client_from_row, rows), key=lambda client: (client.name, client.id))
    found = {client.id: ClientDetails(client, []) for client in clients}
    for repository in _oldest_first(await _on_github(connection)):
        if repository.client_id in found:
            found[repository.client_id].repositories.append(repository)
    return list(found.values())


async def get_client(connection: SupabaseConnection, client_id: str) -> ClientDetails | None:
    """Return a client with its repositories."""
    row = await _row(connection, _CLIENTS, CLIENT_COLUMNS, client_id)
    if row is None:
        return None
    return ClientDetails(
        client_from_row(row), _oldest_first(await _on_github(connection, row["id"]))
    )


async def add_repository(connection: SupabaseConnection, repository: Repository) -> None:
    """Insert a repository.

    Raises:
        Conflict: its client has one of that owner and name.
        InvalidRequest: there is no such client.
    """
    query = connection.function("orchestrator_add_repository", repository_to_row(repository))
    try:
        added = (await connection.attempt(query)).data
    except Refusal as refused:
        if refused.code == MISSING_REFERENCE:
            raise InvalidRequest(
                f"There is no client {repository.client_id}. Create it first."
            ) from refused
        raise translated(refused) from refused
    if not added:
        raise Conflict(f"The client already has the repository {repository.full_name}.")


async def get_repository(connection: SupabaseConnection, repository_id: str) -> Repository | None:
    """Return a repository."""
    row = await _row(connection, _REPOSITORIES, REPOSITORY_COLUMNS, repository_id)
    return None if row is None else repository_from_row(row)


async def find_repository(
    connection: SupabaseConnection, owner_name: str, repo_name: str
) -> Repository | None:
    """Return the oldest repository of that owner and name, in any case."""
    names = {"owner": column_value(owner_name), "repository": column_value(repo_name)}
    rows = await connection.rows(connection.function("orchestrator_find_repository", names))
    return repository_from_row(rows[0]) if rows else None


async def list_repositories(connection: SupabaseConnection) -> list[Repository]:
    """Return every repository, by owner, name and id."""
    return sorted(
        await _on_github(connection),
        key=lambda repository: (repository.owner_name, repository.repo_name, repository.id),
    )


async def feature_exists(connection: SupabaseConnection, feature_id: str) -> bool:
    """Tell whether there is such a feature."""
    return await _row(connection, "features", ("id",), feature_id) is not None


async def team_member_exists(connection: SupabaseConnection, team_member_id: str) -> bool:
    """Tell whether there is such a team member."""
    return await _row(connection, "team_members", ("id",), team_member_id) is not None


async def _row(
    connection: SupabaseConnection, table: str, columns: Iterable[str], row_id: str
) -> Row | None:
    known = canonical_id(row_id)
    if known is None:
        return None
    rows = await connection.rows(connection.table(table).select(*columns).eq("id", known))
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
    """Begin a page that goes on after the last row read, whatever is inserted meanwhile."""
    query = connection.table(table).select(*columns).order("id")
    return query.gt("id", read[-1]["id"]) if read else query


def _oldest_first(repositories: Iterable[Repository]) -> list[Repository]:
    return sorted(repositories, key=lambda repository: (repository.created_at, repository.id))
